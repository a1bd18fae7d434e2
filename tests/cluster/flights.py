"""The flights experiment of experiments/, shortened to seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.cluster.submission import with_defaults

FILE = Path(__file__).parents[2] / "experiments" / "flights" / "const.yaml"

SHORTENED = {
    "searcher.max_length.batches": 20,
    "min_validation_period.batches": 10,
    "scheduling_unit": 5,
    "records_per_epoch": 1600,
    "hyperparameters.global_batch_size": 64,
    "hyperparameters.model.inducing_points": 10,
    "hyperparameters.evaluation.num_samples": 3,
}


def short_flights(checkpoints: Path, slots: int = 1) -> dict[str, Any]:
    """The configuration as a task of the shortened experiment sees it.

    :raises KeyError: if the file no longer has a field that is to be shortened.
    """
    config = YAML(typ="safe").load(FILE)
    for path, value in SHORTENED.items():
        *groups, name = path.split(".")
        group = config
        for key in groups:
            group = group[key]
        if name not in group:
            raise KeyError(f"{FILE.name} has no {path} to shorten; correct SHORTENED")
        group[name] = value
    config["data"]["rows"] = 2000  # the file takes all rows; natdgp refuses fields it does not know
    config["resources"]["slots_per_trial"] = slots
    config["checkpoint_storage"] = {"type": "directory", "container_path": str(checkpoints)}
    return with_defaults(config)
