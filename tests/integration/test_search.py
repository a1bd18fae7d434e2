"""Searches over real trials, from the command line, killed and resumed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import natdgp
from natdgp.run.run_folder import RunFolder
from natdgp.search.runner import validations_of
from natdgp.search.search_folder import SearchFolder
from tests.conftest import REPOSITORY
from tests.integration.conftest import Bench

NATDGP = str(Path(sys.executable).parent / "natdgp")
Write = Callable[[dict[str, Any]], Path]


@pytest.fixture
def searched_experiment(small_experiment: dict[str, Any]) -> dict[str, Any]:
    """The waves, searched at random; trials take seconds to start and less to train."""
    small_experiment["searcher"] = {
        "name": "random",
        "metric": "val_nlpd",
        "max_trials": 2,
        "max_length": {"batches": 12},
    }
    hyperparameters = small_experiment["hyperparameters"]
    hyperparameters["model"]["layers"] = {"type": "int", "minval": 1, "maxval": 2}
    hyperparameters["natural_gradient"]["gamma"] = {
        "type": "log",
        "base": 10,
        "minval": -1.5,
        "maxval": -0.5,
    }
    return small_experiment


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [NATDGP, "search", *map(str, arguments), "--device", "cpu", "--no-progress"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _search(*arguments: object) -> str:
    with _start(*arguments) as search:
        output, _ = search.communicate(timeout=300)
    assert search.returncode == 0, output
    return output


def _wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _values(run: RunFolder) -> dict[int, float]:
    return {
        report["steps_completed"]: report["metrics"]["val_nlpd"] for report in validations_of(run)
    }


@pytest.mark.slow  # with stand-ins in tests/unit/search; a whole search in test_readme.py
def test_halving_killed_and_interrupted_ends_as_one_that_ran_through(
    searched_experiment: dict[str, Any], write_experiment: Write, tmp_path: Path, bench: Bench
) -> None:
    """And its best trial is one that `train` repeats."""
    searched_experiment["searcher"] = {
        "name": "async_halving",
        "metric": "val_nlpd",
        "max_trials": 4,
        "num_rungs": 2,
        "divisor": 3,
        "max_length": {"batches": 12},
        "max_time": 12,
        "time_metric": "batches",
        "max_concurrent_trials": 2,
    }
    file = write_experiment(searched_experiment)
    straight, broken = SearchFolder(tmp_path / "straight"), SearchFolder(tmp_path / "broken")
    assert "stopped" in _search(file, "--out", straight.root)
    arguments: tuple[object, ...] = (file, "--out", broken.root)
    for number, ending in enumerate([signal.SIGKILL, signal.SIGINT, signal.SIGKILL]):
        with _start(*arguments) as search:
            metrics = RunFolder(broken.trial(number)).metrics
            _wait_for(metrics.is_file)
            os.kill(search.pid, ending)
            output, _ = search.communicate(timeout=120)
        if ending is signal.SIGINT:
            assert search.returncode == 130
            assert f"Go on with:\n  natdgp search --resume {broken.root}" in output
        arguments = ("--resume", broken.root)
    first = broken.trial(0).joinpath("metrics.jsonl").read_bytes()
    output = _search(*arguments)
    assert f"Going on with {broken.root}" in output
    assert "async_halving: 4 trials, 48 steps at most; " in output
    assert broken.trial(0).joinpath("metrics.jsonl").read_bytes() == first
    assert broken.leaderboard.read_text() == straight.leaderboard.read_text()

    with broken.leaderboard.open(encoding="utf-8") as leaderboard:
        best = next(csv.DictReader(leaderboard))
    config = YAML(typ="safe", pure=True).load(broken.best_config)
    again = bench.new(config, "again")
    bench.go(again)
    trial = _values(RunFolder(broken.root / best["folder"]))
    assert trial.items() <= _values(again).items()
    assert min(trial.values()) == float(best["val_nlpd"])
    prediction = natdgp.load(broken.root).predict([[0.0, 0.0, 0.0]])
    assert prediction.mean.shape == (1, 1)


@pytest.mark.slow
def test_trials_may_have_several_slots(
    searched_experiment: dict[str, Any], write_experiment: Write, tmp_path: Path
) -> None:
    root = tmp_path / "search"
    output = _search(
        write_experiment(searched_experiment), "--out", root, "--slots", 2, "--trials", 1
    )
    assert "1 trial (1 completed), 12 steps" in output
    assert "Going on" not in (SearchFolder(root).trial(0) / "output.log").read_text()
    assert list(_values(RunFolder(SearchFolder(root).trial(0)))) == [4, 8, 12]
