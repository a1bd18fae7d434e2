"""The flights experiments of experiments/, shortened to seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.cluster.submission import with_defaults

FOLDER = Path(__file__).parents[2] / "experiments" / "flights"

STEPS = 20
"""Of the shortened experiments."""

SHORTENED = {
    "searcher.max_length.batches": STEPS,
    "min_validation_period.batches": 6,
    "min_checkpoint_period.batches": 8,
    "scheduling_unit": 1,  # so that a pause is handled_signals after any step
    "records_per_epoch": 1600,
    "hyperparameters.global_batch_size": 64,
    "hyperparameters.model.inducing_points": 10,
    "hyperparameters.evaluation.num_samples": 3,
}

SHORTENED_HALVING = {
    **SHORTENED,
    "searcher.max_time": STEPS,
    "searcher.max_rungs": 2,
    "min_validation_period.batches": 5,
    "scheduling_unit": 5,
    "hyperparameters.adam.schedule.decay_steps": STEPS,
}


def short_search(checkpoints: Path) -> dict[str, Any]:
    """The configuration as a task of the shortened adaptive search sees it."""
    return _shortened("adaptive.yaml", SHORTENED_HALVING, checkpoints, 1)


def short_flights(checkpoints: Path, slots: int = 1) -> dict[str, Any]:
    """The configuration as a task of the shortened experiment sees it."""
    return _shortened("const.yaml", SHORTENED, checkpoints, slots)


def with_stops(checkpoints: Path, layers: int, slots: int = 1) -> dict[str, Any]:
    """The shortened experiment with callbacks that remember validations: nothing improves by as
    much as they ask, so that the learning rate is lowered several times."""
    return _shortened(
        "const.yaml",
        {
            **SHORTENED,
            "min_validation_period.batches": 3,
            "hyperparameters.model.layers": layers,
            "hyperparameters.adam": {"learning_rate": 0.02},
        },
        checkpoints,
        slots,
        reduce_lr_on_plateau={"patience": 2, "min_delta": 100.0, "factor": 0.5},
        early_stopping={"patience": 50, "min_delta": 100.0},
    )


def _shortened(
    file: str, shortened: Mapping[str, object], checkpoints: Path, slots: int, **more: object
) -> dict[str, Any]:
    """The configuration of a file in shorter, with the master's defaults.

    :param more: hyperparameters that the file leaves out.
    :raises KeyError: if the file no longer has a field that is to be shortened.
    """
    config = YAML(typ="safe").load(FOLDER / file)
    for path, value in shortened.items():
        *groups, name = path.split(".")
        group = config
        for key in groups:
            group = group[key]
        if name not in group:
            raise KeyError(f"{file} has no {path} to shorten; correct it here")
        group[name] = value
    config["hyperparameters"].update(more)
    config["data"]["rows"] = 2000  # the file takes all rows; natdgp refuses fields it does not know
    config["resources"]["slots_per_trial"] = slots
    config["checkpoint_storage"] = {"type": "directory", "container_path": str(checkpoints)}
    return with_defaults(config)
