"""Runs in this process, as `natdgp train` makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from natdgp.run.local_training import Outcome, train
from natdgp.run.run_folder import RunFolder, read_json_lines
from natdgp.run.run_session import new_run
from natdgp.settings.experiment import read_experiment
from tests.conftest import REPOSITORY
from tests.determined_harness import RecordedTrial

Record = Callable[..., RecordedTrial]


class Watcher:
    """An observer that may act after a given number of training steps."""

    def __init__(self, act_at: int | None = None, act: Callable[[], None] | None = None) -> None:
        self._act_at, self._act = act_at, act

    def status(self, status: str) -> None:
        pass

    def training(self, steps: int, metrics: Mapping[str, float]) -> None:
        if self._act is not None and steps == self._act_at:
            self._act()

    def validation(self, steps: int, metrics: Mapping[str, float]) -> None:
        pass


class Bench:
    """Runs experiments of the library's own trial under a temporary folder."""

    def __init__(self, tmp_path: Path, write: Callable[[dict[str, Any]], Path]) -> None:
        self._runs = tmp_path / "runs"
        self._write = write

    def new(self, config: dict[str, Any], name: str = "run") -> RunFolder:
        """Claim a run's folder for an experiment."""
        entrypoint = config["entrypoint"].replace("trials.deep_gp", "natdgp.determined")
        config = {**config, "entrypoint": entrypoint}
        return new_run(read_experiment(self._write(config)), REPOSITORY, self._runs / name)

    def go(self, folder: RunFolder, observer: Watcher | None = None) -> Outcome:
        """Train from where the folder stands."""
        return train(read_experiment(folder.config), folder, observer or Watcher())

    def metrics(self, folder: RunFolder, group: str) -> dict[int, dict[str, float]]:
        """Reports of a group by steps completed."""
        return {
            entry["steps_completed"]: entry["metrics"]
            for entry in read_json_lines(folder.metrics)
            if entry["group"] == group
        }


@pytest.fixture
def bench(tmp_path: Path, write_experiment: Callable[[dict[str, Any]], Path]) -> Bench:
    return Bench(tmp_path, write_experiment)


@pytest.fixture
def record(tmp_path: Path, write_experiment: Callable[[dict[str, Any]], Path]) -> Record:
    """Makes a trial under Determined's own controller of an experiment's plain values."""

    def make(config: dict[str, Any], name: str, **others: Any) -> RecordedTrial:
        return RecordedTrial(read_experiment(write_experiment(config)), tmp_path / name, **others)

    return make
