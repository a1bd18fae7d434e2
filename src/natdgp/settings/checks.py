"""Rules that bind several sections of an experiment file, each a function of its own.

They are given what is valid in itself, so that what else is wrong with a file does not hide them:
the file's sections by name, its `space`, whether it is `local` to this machine, and, if they are of
POINT_CHECKS, the groups of the settings at one point of the space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from natdgp.settings.configuration import IMAGE
from natdgp.settings.problems import Problem
from natdgp.settings.searchers import GridSearcher, HalvingSearcher
from natdgp.settings.spans import in_batches
from natdgp.training.training_settings import LARGER_IS_BETTER

Valid = Mapping[str, Any]


def epochs_have_a_length(valid: Valid) -> Iterator[Problem]:
    """The master's records_per_epoch is 0 by default, which ends an epoch after every batch."""
    searcher, adam = valid.get("searcher"), valid.get("adam")
    spans = {"searcher.max_length": searcher and searcher.max_length}
    spans |= {name: valid.get(name) for name in ("min_validation_period", "min_checkpoint_period")}
    users = [f"{name} (epochs)" for name, span in spans.items() if span and span.epochs is not None]
    if getattr(searcher, "time_metric", None) == "epochs":
        users.append("searcher.time_metric (epochs)")
    if adam and adam.schedule.name == "per_epoch":
        users.append("hyperparameters.adam.schedule (per_epoch)")
    if users and valid.get("records_per_epoch") is None:
        message = f"required by {', '.join(users)}; without it every batch would end an epoch"
        remedy = "set it to the number of training rows, or count in batches"
        yield Problem("records_per_epoch", None, message, remedy, "epochs-without-length")


def slots_share_a_batch(valid: Valid) -> Iterator[Problem]:
    """Determined would round the global batch size down to a multiple of the slots."""
    rows, resources = valid.get("global_batch_size"), valid.get("resources")
    if rows and resources and rows % resources.slots_per_trial:
        slots = resources.slots_per_trial
        fewer, more = rows // slots * slots, (rows // slots + 1) * slots
        message = f"must be a multiple of resources.slots_per_trial, {slots}, as slots share a "
        remedy = f"use {fewer} or {more}" if fewer else f"use {more}, or fewer slots"
        path, code = "hyperparameters.global_batch_size", "batch-not-shared"
        yield Problem(path, rows, f"{message}batch evenly", remedy, code)


def image_has_tensorflow(valid: Valid) -> Iterator[Problem]:
    """Determined's default image has no TensorFlow."""
    if (environment := valid.get("environment")) is None:
        return
    image = environment.image or "determinedai/pytorch-ngc"
    for kind, name in image.items() if isinstance(image, dict) else [("", image)]:
        if "pytorch-ngc" in name:
            path = f"environment.image.{kind}".rstrip(".")
            message = "must be an image with TensorFlow, which Determined's default does not have"
            remedy = f"set environment: {{image: {IMAGE}}}"
            yield Problem(path, name, message, remedy, "image-without-tensorflow")


def data_can_be_read(valid: Valid) -> Iterator[Problem]:
    """Arrays are given in Python."""
    if valid.get("data", {}).get("source") == "arrays":
        message = "stands for rows given in Python, in no file"
        yield Problem("data.source", "arrays", message, "write a csv file", "not-in-a-file")


def metrics_are_reported(valid: Valid) -> Iterator[Problem]:
    """What is reported of predictions depends on the kind of target."""
    if (model := valid.get("model")) is None:
        return
    figures = [f"val_{f.name}" for f in model.likelihood.likelihood.figures if f.judges]
    known = ["val_loss", "val_elbo_per_datum", *figures]
    for path in (
        "searcher.metric",
        "hyperparameters.early_stopping.monitor",
        "hyperparameters.reduce_lr_on_plateau.monitor",
    ):
        *_, group, field = path.split(".")
        metric = getattr(valid.get(group), field, None)
        if metric is not None and metric not in known:
            message = f"is not reported for the likelihood {model.likelihood.name}, which has "
            remedy, code = "choose one of these", "metric-not-reported"
            yield Problem(path, metric, f"{message}{', '.join(known)}", remedy, code)


def metric_says_what_is_better(valid: Valid) -> Iterator[Problem]:
    """The best checkpoint is kept by it, and the better trials."""
    searcher = valid.get("searcher")
    if searcher and searcher.smaller_is_better == (searcher.metric in LARGER_IS_BETTER):
        smaller = searcher.smaller_is_better
        message = f"with metric {searcher.metric} keeps the worst checkpoint as the best"
        remedy = f"set smaller_is_better: {str(not smaller).lower()}"
        yield Problem("searcher.smaller_is_better", smaller, message, remedy, "worst-kept")


def halving_has_one_length(valid: Valid) -> Iterator[Problem]:
    """Trials stop at max_length, and rungs go up to max_time."""
    searcher = valid.get("searcher")
    if not isinstance(searcher, HalvingSearcher):
        return
    length, unit, time = searcher.max_length.span, searcher.time_metric, searcher.max_time
    if length != {unit: time}:
        message = f"must say the same as max_time, {time} {unit}: trials stop at the one, rungs go "
        remedy = f"set max_length: {{{unit}: {time}}}"
        yield Problem(
            "searcher.max_length", length, f"{message}up to the other", remedy, "two-lengths"
        )


def rungs_see_a_validation(valid: Valid) -> Iterator[Problem]:
    """Trials are compared at the first validation at or after a rung."""
    path = "min_validation_period"
    searcher, period, rows = map(valid.get, ("searcher", path, "global_batch_size"))
    if not isinstance(searcher, HalvingSearcher) or period is None or rows is None:
        return
    records, unit = valid.get("records_per_epoch"), searcher.time_metric
    if records is None and (unit == "epochs" or period.epochs is not None):
        return
    shortest = min(bracket.rungs[0] for bracket in searcher.brackets)
    between = in_batches(period.span, rows, records) if any(period.span.values()) else math.inf
    if between > in_batches({unit: shortest}, rows, records):
        message = f"must not be 0, nor longer than the shortest rung, {shortest} {unit}, as trials "
        message += "are compared by their validations"
        remedy = f"set {path}: {{{unit}: {shortest}}}"
        yield Problem(path, period.span, message, remedy, "rung-sees-no-validation")


def grids_can_be_counted(valid: Valid) -> Iterator[Problem]:
    """A grid takes `count` values of a range, and the master no more than so many trials."""
    if not isinstance(valid.get("searcher"), GridSearcher):
        return
    space = valid["space"]
    uncounted = [at for at, domain in space.domains.items() if getattr(domain, "count", 1) is None]
    for at in uncounted:
        path = ".".join(["hyperparameters", *at])
        message = "required by the grid searcher: how many values of this range it takes"
        remedy = f"add `count:` to {path}"
        yield Problem(f"{path}.count", None, message, remedy, "range-without-count")
    if not uncounted and space.grid_size > MOST_OF_GRID:
        received = f"a grid of {space.grid_size:,} points"
        message = f"is too large: Determined runs {MOST_OF_GRID:,} trials of a grid at most"
        remedy = "lower some `count`, or search at random"
        yield Problem("hyperparameters", received, message, remedy, "grid-too-large")


def trials_start_from_nothing(valid: Valid) -> Iterator[Problem]:
    """Trials and checkpoints by number are a cluster's."""
    for field in ("source_trial_id", "source_checkpoint_uuid") if valid["local"] else ():
        if (value := getattr(valid.get("searcher"), field, None)) is not None:
            message = "names what only a cluster has; on this machine trials start from nothing"
            path = f"searcher.{field}"
            remedy = f"take it out for this run: --set {path}=null"
            yield Problem(path, value, message, remedy, "only-on-a-cluster")


MOST_OF_GRID: Final = 2000
"""Determined's MaxAllowedTrials."""

Checks = tuple[Callable[[Valid], Iterator[Problem]], ...]
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
    trials_start_from_nothing,
)
