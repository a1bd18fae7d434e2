"""Searches whose trials are a stand-in program: what a trial writes, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from natdgp.settings import Search, read_search

Write = Callable[..., Search]

CONFIG: dict[str, Any] = {
    "name": "waves",
    "entrypoint": "python3 -m determined.launch.horovod --trial natdgp.determined:DeepGPTrial",
    "environment": {"image": "determinedai/tensorflow-ngc:0.38.1"},
    "searcher": {
        "name": "adaptive_asha",
        "metric": "val_nlpd",
        "max_trials": 12,
        "max_length": {"batches": 18},
        "max_time": 18,
        "time_metric": "batches",
        "divisor": 3,
        "max_rungs": 3,
        "max_concurrent_trials": 4,
    },
    "min_validation_period": {"batches": 2},
    "reproducibility": {"experiment_seed": 5},
    "data": {"source": "flights"},
    "hyperparameters": {
        "global_batch_size": {"type": "categorical", "vals": [32, 64]},
        "model": {"layers": {"type": "int", "minval": 1, "maxval": 3}},
        "natural_gradient": {"gamma": {"type": "log", "base": 10, "minval": -2, "maxval": 0}},
        "adam": {"learning_rate": {"type": "double", "minval": 0.001, "maxval": 0.1}},
    },
}


@pytest.fixture
def search_of(tmp_path: Path) -> Write:
    """Reads the search above with other searcher fields or hyperparameters, given by keyword."""

    def write(**changes: Any) -> Search:
        config = {**CONFIG, **changes}
        path = tmp_path / "search-of.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(config, file)
        return read_search(path)

    return write


RANDOM = {"name": "random", "metric": "val_nlpd", "max_length": {"batches": 6}, "max_trials": 4}
