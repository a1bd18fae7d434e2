"""Rules that bind several sections of an experiment file, each a function of its own.

They look at the raw values, so that what else is wrong with a file does not hide them. A value
that is wrong in itself is not theirs to report. Those of POINT_CHECKS look at a file with one point
of its space as hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import TypeAdapter, ValidationError

from natdgp.settings.brackets import brackets_of
from natdgp.settings.configuration import IMAGE
from natdgp.settings.domains import Double, Int, Log
from natdgp.settings.problems import MISSING, Problem
from natdgp.settings.searchers import HalvingSearcher
from natdgp.settings.space import read_space
from natdgp.settings.spans import in_batches
from natdgp.training.settings import LARGER_IS_BETTER, JudgingMetric

Check = Callable[[Mapping[str, Any]], Iterator[Problem]]


def epochs_have_a_length(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The master's records_per_epoch is 0 by default, which ends an epoch after every batch."""
    users = [
        f"{span} (epochs)"
        for span in ("searcher.max_length", "min_validation_period", "min_checkpoint_period")
        if _at(config, f"{span}.epochs") is not None
    ]
    if _at(config, "searcher.time_metric") == "epochs":
        users.append("searcher.time_metric (epochs)")
    if _at(config, "hyperparameters.adam.schedule.name") == "per_epoch":
        users.append("hyperparameters.adam.schedule (per_epoch)")
    if users and config.get("records_per_epoch") is None:
        yield Problem(
            "records_per_epoch",
            MISSING,
            f"required by {', '.join(users)}; without it every batch would end an epoch",
            "set it to the number of training rows, or count in batches",
        )


def slots_share_a_batch(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Determined would round the global batch size down to a multiple of the slots."""
    rows = _at(config, "hyperparameters.global_batch_size")
    slots = _at(config, "resources.slots_per_trial")
    if isinstance(rows, int) and isinstance(slots, int) and rows > 0 and slots > 0 and rows % slots:
        fewer, more = rows // slots * slots, (rows // slots + 1) * slots
        yield Problem(
            "hyperparameters.global_batch_size",
            rows,
            f"must be a multiple of resources.slots_per_trial, {slots}, as slots share a batch "
            "evenly",
            f"use {fewer} or {more}" if fewer else f"use {more}, or fewer slots",
        )


def image_has_tensorflow(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Determined's default image has no TensorFlow."""
    image = _at(config, "environment.image")
    remedy = f"set environment: {{image: {IMAGE}}}"
    if image is None or image == {}:
        yield Problem(
            "environment.image",
            MISSING,
            "required: Determined's default, determinedai/pytorch-ngc:0.38.1, has no TensorFlow",
            remedy,
        )
    images = image if isinstance(image, Mapping) else {None: image}
    for kind, name in images.items():
        if isinstance(name, str) and "pytorch-ngc" in name:
            path = f"environment.image.{kind}" if kind else "environment.image"
            yield Problem(path, name, "must be an image with TensorFlow", remedy)


def metric_says_what_is_better(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The best checkpoint is kept by it, and the better trials."""
    metric, smaller = _at(config, "searcher.metric"), _at(config, "searcher.smaller_is_better")
    smaller = True if smaller is None else smaller
    known = isinstance(metric, str) and metric in get_args(JudgingMetric)
    if known and isinstance(smaller, bool) and smaller == (metric in LARGER_IS_BETTER):
        yield Problem(
            "searcher.smaller_is_better",
            smaller,
            f"with metric {metric} keeps the worst checkpoint as the best",
            f"set smaller_is_better: {str(not smaller).lower()}",
        )


def halving_has_one_length(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Trials stop at max_length, and rungs go up to max_time."""
    searcher, length = _halving(config), _at(config, "searcher.max_length")
    if searcher is None or not isinstance(length, Mapping):
        return
    said_twice = {searcher.time_metric: searcher.max_time}
    if {unit: count for unit, count in length.items() if count is not None} != said_twice:
        yield Problem(
            "searcher.max_length",
            length,
            f"must say the same as max_time, {searcher.max_time} {searcher.time_metric}: trials "
            "stop at the one, and rungs go up to the other",
            f"set max_length: {{{searcher.time_metric}: {searcher.max_time}}}",
        )


def rungs_see_a_validation(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Trials are compared at the first validation at or after a rung."""
    searcher, rows = _halving(config), _at(config, "hyperparameters.global_batch_size")
    if searcher is None or not isinstance(rows, int) or rows < 1:
        return
    unit, shortest = searcher.time_metric, min(b.rungs[0] for b in brackets_of(searcher))
    rung = _steps(config, {unit: shortest}, rows)
    period = config.get("min_validation_period")
    given = {k: v for k, v in period.items() if v} if isinstance(period, Mapping) else {}
    between = _steps(config, given, rows)
    if given and (rung is None or between is None or between <= rung):
        return
    yield Problem(
        "min_validation_period",
        period or MISSING,
        f"must not be longer than the shortest rung, {shortest} {unit}, as trials are compared by "
        "their validations",
        f"set min_validation_period: {{{unit}: {shortest}}}",
    )


def grids_can_be_counted(config: Mapping[str, Any]) -> Iterator[Problem]:
    """A grid takes `count` values of a range, and the master no more than so many trials."""
    given = config.get("hyperparameters")
    if not is_grid(config) or not isinstance(given, Mapping):
        return
    space = read_space(given)[0]
    uncounted = [
        path
        for path, domain in space.searched.items()
        if isinstance(domain, Int | Double | Log) and domain.count is None
    ]
    for path in uncounted:
        yield Problem(
            f"{path}.count",
            MISSING,
            "required by the grid searcher: how many values of this range it takes",
            f"add `count:` to {path}",
        )
    if not uncounted and space.grid_size > MOST_OF_GRID:
        yield Problem(
            "hyperparameters",
            f"a grid of {space.grid_size:,} points",
            f"is too large: Determined runs {MOST_OF_GRID:,} trials of a grid at most",
            "lower some `count`, or search at random",
        )


def is_grid(config: Mapping[str, Any]) -> bool:
    """Whether a grid is searched."""
    return bool(_at(config, "searcher.name") == "grid")


def trials_start_from_nothing(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Trials and checkpoints by number are a cluster's."""
    for name in ("source_trial_id", "source_checkpoint_uuid"):
        if (value := _at(config, f"searcher.{name}")) is not None:
            yield Problem(
                f"searcher.{name}",
                value,
                "names what only a cluster has; on this machine every trial starts from nothing",
                f"take it out for this run: --set searcher.{name}=null",
            )


MOST_OF_GRID: Final = 2000
"""Determined's MaxAllowedTrials."""

POINT_CHECKS: Final[tuple[Check, ...]] = (
    epochs_have_a_length,
    slots_share_a_batch,
    rungs_see_a_validation,
)
FILE_CHECKS: Final[tuple[Check, ...]] = (
    image_has_tensorflow,
    metric_says_what_is_better,
    halving_has_one_length,
    grids_can_be_counted,
)
LOCAL_CHECKS: Final[tuple[Check, ...]] = (trials_start_from_nothing,)

_HALVING: Final[TypeAdapter[HalvingSearcher]] = TypeAdapter(HalvingSearcher)
_OF_RUNGS: Final = (
    *("name", "max_trials", "max_time", "time_metric", "divisor", "max_concurrent_trials"),
    *("num_rungs", "mode", "max_rungs", "bracket_rungs"),
)
_ANY_JUDGE: Final = {"metric": "val_loss", "max_length": {"batches": 1}}


def _halving(config: Mapping[str, Any]) -> HalvingSearcher | None:
    """The searcher, if it is one that compares trials at rungs, and these are valid.

    What is wrong with other fields of it must not hide what is wrong with the rungs.
    """
    given = config.get("searcher")
    if not isinstance(given, Mapping):
        return None
    own = {name: value for name, value in given.items() if name in _OF_RUNGS}
    try:
        return _HALVING.validate_python({**_ANY_JUDGE, **own})
    except ValidationError:
        return None


def _steps(config: Mapping[str, Any], span: Mapping[str, Any], rows: int) -> int | None:
    """A span in batches of so many rows, if it is one."""
    records = config.get("records_per_epoch")
    counts = [*span.values(), *([records] if "epochs" in span else [])]
    if len(span) != 1 or not all(isinstance(n, int) and n > 0 for n in counts):
        return None
    return in_batches(span, rows, records)


def _at(config: Any, path: str) -> Any:
    """The value at a path, or None."""
    for name in path.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config
