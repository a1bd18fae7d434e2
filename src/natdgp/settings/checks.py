"""Rules that bind several sections of an experiment file, each a function of its own.

They look at the raw values, so that what else is wrong with a file does not hide them. A value
that is wrong in itself is not theirs to report. Those of POINT_CHECKS look at a file with one point
of its space as hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import TypeAdapter, ValidationError

from natdgp.likelihoods.registry import LikelihoodSettings
from natdgp.settings.brackets import brackets_of
from natdgp.settings.configuration import IMAGE
from natdgp.settings.problems import Problem, choices, groups
from natdgp.settings.searchers import HalvingSearcher
from natdgp.settings.space import read_space, value_at
from natdgp.settings.spans import Period, in_batches
from natdgp.training.training_settings import LARGER_IS_BETTER, SelectionMetric


def epochs_have_a_length(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The master's records_per_epoch is 0 by default, which ends an epoch after every batch."""
    spans = ("searcher.max_length", "min_validation_period", "min_checkpoint_period")
    users = [f"{span} (epochs)" for span in spans if _at(config, f"{span}.epochs") is not None]
    if _at(config, "searcher.time_metric") == "epochs":
        users.append("searcher.time_metric (epochs)")
    if _at(config, "hyperparameters.adam.schedule.name") == "per_epoch":
        users.append("hyperparameters.adam.schedule (per_epoch)")
    if users and config.get("records_per_epoch") is None:
        message = f"required by {', '.join(users)}; without it every batch would end an epoch"
        remedy = "set it to the number of training rows, or count in batches"
        yield Problem("records_per_epoch", None, message, remedy, "epochs-without-length")


def slots_share_a_batch(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Determined would round the global batch size down to a multiple of the slots."""
    path, share = "hyperparameters.global_batch_size", "resources.slots_per_trial"
    rows, slots = _at(config, path), _at(config, share)
    if _is_count(rows) and _is_count(slots) and rows % slots:
        fewer, more = rows // slots * slots, (rows // slots + 1) * slots
        message = f"must be a multiple of {share}, {slots}, as slots share a batch evenly"
        remedy = f"use {fewer} or {more}" if fewer else f"use {more}, or fewer slots"
        yield Problem(path, rows, message, remedy, "batch-not-shared")


def image_has_tensorflow(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Determined's default image has no TensorFlow."""
    path, code = "environment.image", "image-without-tensorflow"
    image, remedy = _at(config, path), f"set environment: {{image: {IMAGE}}}"
    if not image:
        message = "required: Determined's default, determinedai/pytorch-ngc, has no TensorFlow"
        yield Problem(path, None, message, remedy, code)
    for kind, name in image.items() if isinstance(image, Mapping) else [("", image)]:
        if isinstance(name, str) and "pytorch-ngc" in name:
            where = f"{path}.{kind}".rstrip(".")
            yield Problem(where, name, "must be an image with TensorFlow", remedy, code)


def data_can_be_read(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Arrays are given in Python."""
    if _at(config, "data.source") == "arrays":
        message = "stands for rows given in Python, in no file"
        yield Problem("data.source", "arrays", message, "write a csv file", "not-in-a-file")


def metrics_are_reported(config: Mapping[str, Any]) -> Iterator[Problem]:
    """What is reported of predictions depends on the kind of target."""
    kind = _at(config, "hyperparameters.model.likelihood.name") or "gaussian"
    known = _METRICS.get(kind if isinstance(kind, str) else "", get_args(SelectionMetric))
    groups_with_monitor = ("early_stopping", "reduce_lr_on_plateau")
    monitors = [f"hyperparameters.{group}.monitor" for group in groups_with_monitor]
    for path in ("searcher.metric", *monitors):
        metric = _at(config, path)
        if metric in get_args(SelectionMetric) and metric not in known:
            message = f"is not reported for the likelihood {kind}, which has {', '.join(known)}"
            yield Problem(path, metric, message, "choose one of these", "metric-not-reported")


def metric_says_what_is_better(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The best checkpoint is kept by it, and the better trials."""
    path, metric = "searcher.smaller_is_better", _at(config, "searcher.metric")
    smaller = True if _at(config, path) is None else _at(config, path)
    if metric in get_args(SelectionMetric) and smaller is (metric in LARGER_IS_BETTER):
        message = f"with metric {metric} keeps the worst checkpoint as the best"
        remedy = f"set smaller_is_better: {str(not smaller).lower()}"
        yield Problem(path, smaller, message, remedy, "worst-kept")


def halving_has_one_length(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Trials stop at max_length, and rungs go up to max_time."""
    searcher = _valid(_HALVING, config.get("searcher"))
    said = searcher and {searcher.time_metric: searcher.max_time}
    if searcher and searcher.max_length.model_dump(exclude_none=True) != said:
        path, time = "searcher.max_length", f"{searcher.max_time} {searcher.time_metric}"
        message = f"must say the same as max_time, {time}: trials stop at the one, rungs go up to"
        remedy = f"set max_length: {{{searcher.time_metric}: {searcher.max_time}}}"
        yield Problem(path, _at(config, path), f"{message} the other", remedy, "two-lengths")


def rungs_see_a_validation(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Trials are compared at the first validation at or after a rung."""
    path = "min_validation_period"
    searcher = _valid(_HALVING, config.get("searcher"))
    period = _valid(_PERIOD, config.get(path) or {"batches": 0})
    rows = _at(config, "hyperparameters.global_batch_size")
    records = config.get("records_per_epoch")
    if searcher is None or period is None or not _is_count(rows):
        return
    unit, shortest = searcher.time_metric, min(b.rungs[0] for b in brackets_of(searcher))
    ((other, between),) = period.model_dump(exclude_none=True).items()
    if "epochs" in (unit, other) and not _is_count(records):
        return
    rung = in_batches({unit: shortest}, rows, records)
    if between == 0 or in_batches({other: between}, rows, records) > rung:
        message = f"must not be longer than the shortest rung, {shortest} {unit}, as trials are "
        message += "compared by their validations"
        remedy = f"set {path}: {{{unit}: {shortest}}}"
        yield Problem(path, config.get(path), message, remedy, "rung-sees-no-validation")


def grids_can_be_counted(config: Mapping[str, Any]) -> Iterator[Problem]:
    """A grid takes `count` values of a range, and the master no more than so many trials."""
    given = config.get("hyperparameters")
    if not is_grid(config) or not isinstance(given, Mapping):
        return
    space = read_space(given)[0]
    uncounted = [p for p, domain in space.searched.items() if getattr(domain, "count", 1) is None]
    for path in uncounted:
        message = "required by the grid searcher: how many values of this range it takes"
        remedy = f"add `count:` to {path}"
        yield Problem(f"{path}.count", None, message, remedy, "range-without-count")
    if not uncounted and space.grid_size > MOST_OF_GRID:
        received = f"a grid of {space.grid_size:,} points"
        message = f"is too large: Determined runs {MOST_OF_GRID:,} trials of a grid at most"
        remedy = "lower some `count`, or search at random"
        yield Problem("hyperparameters", received, message, remedy, "grid-too-large")


def is_grid(config: Mapping[str, Any]) -> bool:
    """Whether a grid is searched."""
    return bool(_at(config, "searcher.name") == "grid")


def trials_start_from_nothing(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Trials and checkpoints by number are a cluster's."""
    for path in ("searcher.source_trial_id", "searcher.source_checkpoint_uuid"):
        if (value := _at(config, path)) is not None:
            message = "names what only a cluster has; on this machine trials start from nothing"
            remedy = f"take it out for this run: --set {path}=null"
            yield Problem(path, value, message, remedy, "only-on-a-cluster")


MOST_OF_GRID: Final = 2000
"""Determined's MaxAllowedTrials."""

Checks = tuple[Callable[[Mapping[str, Any]], Iterator[Problem]], ...]
POINT_CHECKS: Final[Checks] = (
    epochs_have_a_length,
    slots_share_a_batch,
    metrics_are_reported,
    rungs_see_a_validation,
)
FILE_CHECKS: Final[Checks] = (
    image_has_tensorflow,
    data_can_be_read,
    metric_says_what_is_better,
    halving_has_one_length,
    grids_can_be_counted,
)
LOCAL_CHECKS: Final[Checks] = (trials_start_from_nothing,)

_KINDS_OF_TARGET: Final[Any] = groups(LikelihoodSettings)
_METRICS: Final[dict[str, tuple[str, ...]]] = {
    name: (
        *("val_loss", "val_elbo_per_datum"),
        *(f"val_{figure.name}" for figure in kind.likelihood.figures if figure.judges),
    )
    for kind in _KINDS_OF_TARGET
    for name in choices(kind.model_fields["name"].annotation)
}
"""By the name of a likelihood."""

_HALVING: Final[TypeAdapter[HalvingSearcher]] = TypeAdapter(HalvingSearcher)
_PERIOD: Final[TypeAdapter[Period]] = TypeAdapter(Period)


def _valid(kind: TypeAdapter[Any], value: Any) -> Any:
    """A value as it is validated, or None."""
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _at(config: Any, path: str) -> Any:
    """The value at a path, or None."""
    return value_at(config, tuple(path.split(".")))
