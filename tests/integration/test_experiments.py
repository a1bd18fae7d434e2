"""Every experiment file trains, shortened; a shortening that no longer applies fails."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from natdgp.local.run import train
from natdgp.local.session import new_run
from natdgp.settings import read_experiment
from tests.conftest import REPOSITORY
from tests.integration.conftest import Watcher

FILES = sorted((REPOSITORY / "experiments").glob("*/*.yaml"))
SHORTER = {
    "searcher.max_length": "{batches: 4}",
    "min_validation_period": "{batches: 2}",
    "scheduling_unit": "1",
    "hyperparameters.global_batch_size": "64",
    "hyperparameters.model.inducing_points": "10",
    "hyperparameters.evaluation.num_samples": "2",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_experiment_trains(file: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = YAML(typ="safe", pure=True).load(file)
    for path in SHORTER:
        functools.reduce(lambda group, name: group[name], path.split("."), content)
    overrides = [f"{path}={value}" for path, value in SHORTER.items()]
    folder = new_run(
        read_experiment(file, [*overrides, "data.rows=500"]), REPOSITORY, tmp_path / "run"
    )
    assert train(read_experiment(folder.config), folder, Watcher()).steps == 4
