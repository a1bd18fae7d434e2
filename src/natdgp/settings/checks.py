"""Rules that bind several sections of an experiment file, each a function of its own.

They look at the raw values, so that what else is wrong with a file does not hide them. A value
that is wrong in itself is not theirs to report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from natdgp.settings.configuration import IMAGE
from natdgp.settings.problems import MISSING, Problem

Check = Callable[[Mapping[str, Any]], Iterator[Problem]]


def epochs_have_a_length(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The master's records_per_epoch is 0 by default, which ends an epoch after every batch."""
    users = [
        f"{span} (epochs)"
        for span in ("searcher.max_length", "min_validation_period", "min_checkpoint_period")
        if _at(config, f"{span}.epochs") is not None
    ]
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


CHECKS: Final[tuple[Check, ...]] = (
    epochs_have_a_length,
    slots_share_a_batch,
    image_has_tensorflow,
)


def _at(config: Any, path: str) -> Any:
    """The value at a path, or None."""
    for name in path.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config
