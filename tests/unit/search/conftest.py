"""Searches whose trials are a stand-in program: what a trial writes, without training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from natdgp.run.run_folder import write_yaml
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_state import Event, SearchState, ended, validated
from natdgp.settings import Search, read_search
from tests.conftest import REPOSITORY

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


RANDOM = {"name": "random", "metric": "val_nlpd", "max_length": {"batches": 6}, "max_trials": 4}

CSV = {"source": "csv", "path": "table.csv", "target": ["y"]}


@pytest.fixture
def search(search_of: Write) -> Search:
    """A random search of 4 trials of 6 steps."""
    return search_of(searcher=RANDOM)


@pytest.fixture
def folder(search: Search, tmp_path: Path) -> SearchFolder:
    """The folder of that search."""
    return claimed(tmp_path / "search", search)


def claimed(root: Path, search: Search) -> SearchFolder:
    """A new folder of a search."""
    folder = SearchFolder.create(root)
    write_yaml(folder.config, search.config)
    return folder


@pytest.fixture
def search_of(tmp_path: Path) -> Write:
    """Reads the search above with other searcher fields or hyperparameters, given by keyword."""

    def write(**changes: Any) -> Search:
        path = tmp_path / "search-of.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump({**CONFIG, **changes}, file)
        return read_search(path)

    return write


@pytest.fixture
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are the stand-in, which is found from everywhere."""
    program = (sys.executable, "-m", "tests.unit.search.stand_in")
    monkeypatch.setattr("natdgp.search.runner.PROGRAM", program)
    monkeypatch.setattr("natdgp.search.runner.PAUSE", 0.002)
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{REPOSITORY}/src")


EVENTS: tuple[Event, ...] = (
    validated(0, 2, 2, 3.5),
    validated(0, 6, 6, 3.75),
    ended(0, TrialEnding.COMPLETED),
    validated(2, 2, 2, 1.25),
    ended(1, TrialEnding.INVALID, "gamma is too long"),
    validated(2, 6, 6, 1.0),
    ended(2, TrialEnding.COMPLETED),
    ended(3, TrialEnding.FAILED, "ValueError"),
    validated(4, 2, 2, 1.0),
    ended(4, TrialEnding.COMPLETED),
)


def state_after(search: Search, events: Iterable[Event]) -> SearchState:
    """A search to which this happened."""
    state = SearchState(search)
    for event in events:
        state.take(event)
    return state
