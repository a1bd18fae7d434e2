"""Every experiment file trains, shortened; a shortening that no longer applies fails.

Of a file that searches, the first trial trains.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from natdgp.run.local_training import train
from natdgp.run.run_session import new_run
from natdgp.search.runner import experiment_of
from natdgp.search.search_state import SearchState
from natdgp.settings import read_experiment, read_search
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


SHORTER_HALVING = {
    **SHORTER,
    "searcher.max_time": "4",
    "min_validation_period": "{batches: 1}",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_experiment_trains(file: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = YAML(typ="safe", pure=True).load(file)
    shorter = SHORTER_HALVING if "max_time" in content["searcher"] else SHORTER
    for path in shorter:
        functools.reduce(lambda group, name: group[name], path.split("."), content)
    overrides = [f"{path}={value}" for path, value in shorter.items()]
    search = read_search(file, [*overrides, "data.rows=500"])
    experiment = experiment_of(search, SearchState(search).trials[0])
    folder = new_run(experiment, REPOSITORY, tmp_path / "run")
    assert train(read_experiment(folder.config), folder, Watcher()).steps == 4
