"""Rules that bind several sections of an experiment file, each a function of its own.

They look at the raw values, so that what else is wrong with a file does not hide them. A value
that is wrong in itself is not theirs to report. Those of POINT_CHECKS look at a file with one point
of its space as hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from natdgp.settings.brackets import brackets_of
from natdgp.settings.configuration import IMAGE
from natdgp.settings.domains import Double, Int, Log
from natdgp.settings.problems import MISSING, Problem
from natdgp.settings.searchers import HalvingSearcher
from natdgp.settings.space import read_space
from natdgp.settings.spans import in_batches

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


def grids_have_counts(config: Mapping[str, Any]) -> Iterator[Problem]:
    """A grid takes `count` values of a range."""
    given = config.get("hyperparameters")
    if _at(config, "searcher.name") != "grid" or not isinstance(given, Mapping):
        return
    for path, domain in read_space(given)[0].searched.items():
        if isinstance(domain, Int | Double | Log) and domain.count is None:
            yield Problem(
                f"{path}.count",
                MISSING,
                "required by the grid searcher: how many values of this range it takes",
                f"add `count:` to {path}",
            )


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


POINT_CHECKS: Final[tuple[Check, ...]] = (
    epochs_have_a_length,
    slots_share_a_batch,
    rungs_see_a_validation,
)
FILE_CHECKS: Final[tuple[Check, ...]] = (image_has_tensorflow, grids_have_counts)
LOCAL_CHECKS: Final[tuple[Check, ...]] = (trials_start_from_nothing,)

_HALVING: Final[TypeAdapter[HalvingSearcher]] = TypeAdapter(HalvingSearcher)


def _halving(config: Mapping[str, Any]) -> HalvingSearcher | None:
    """The searcher, if it is one that compares trials at rungs, and a valid one."""
    try:
        return _HALVING.validate_python(config.get("searcher"))
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
