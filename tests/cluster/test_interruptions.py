"""A trial that a cluster pauses, loses and restarts ends as if nothing had happened."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.cluster.container import Kill, Task, run_trial
from tests.cluster.flights import STEPS, short_flights, with_stops
from tests.cluster.image import Image
from tests.cluster.master import StandInMaster, steps
from tests.cluster.same import assert_same_trial

SAME = 1e-8
"""Relative: the order of summation over ranks."""


def _points(seed: int, number: int) -> list[int]:
    """Steps to be interrupted after, in order."""
    return sorted(random.Random(seed).sample(range(1, STEPS), number))


def _pause(image: Image, master: StandInMaster, folder: Path, after: int) -> None:
    acknowledged = master.acknowledgements
    task = run_trial(image, master, folder, pause_after=after)
    assert task.exit_code == 0, task.log
    assert master.acknowledgements == acknowledged + 1
    assert steps(master, "training", run=master.runs)[-1] == after
    assert master.checkpoints[-1].metadata["steps_completed"] == after


def _kill(image: Image, master: StandInMaster, folder: Path, kill: Kill) -> None:
    task = run_trial(image, master, folder, kill=kill)
    if kill.rank is None:
        assert task.exit_code == -signal.SIGKILL
    else:
        assert task.exit_code > 0, task.log
    assert not master.early_exits


def _finish(image: Image, master: StandInMaster, folder: Path) -> Task:
    task = run_trial(image, master, folder)
    assert task.exit_code == 0, task.log
    assert not master.unknown
    assert master.progress[-1] == 1
    return task


@pytest.mark.parametrize(("slots", "seed"), [(1, 0), (2, 1)])
def test_a_paused_trial_ends_where_an_uninterrupted_one_does(
    image: Image,
    context: str,
    storage: Path,
    completed: tuple[StandInMaster, Task],
    tmp_path: Path,
    slots: int,
    seed: int,
) -> None:
    (point,) = _points(seed, 1)
    with StandInMaster(short_flights(storage, slots), context) as master:
        _pause(image, master, tmp_path / "first", point)
        task = _finish(image, master, tmp_path / "second")
    assert "is installed already" in task.log, "the second startup hook has nothing to do"
    assert steps(master, "training", run=2) == list(range(point + 1, STEPS + 1))
    straight, _ = completed
    assert_same_trial(straight, master, storage, rtol=0.0 if slots == 1 else SAME)


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "seed"), [(1, 2), (1, 3), (2, 4), (2, 5)])
def test_a_trial_paused_and_killed_at_random_equals_an_uninterrupted_one(
    image: Image, context: str, storage: Path, tmp_path: Path, layers: int, seed: int
) -> None:
    config = with_stops(storage, layers)
    with StandInMaster(config, context) as straight:
        _finish(image, straight, tmp_path / "straight")
    with StandInMaster(config, context) as master:
        first, second, third, fourth = _points(seed, 4)
        _pause(image, master, tmp_path / "1", first)
        _kill(image, master, tmp_path / "2", Kill(second))
        _pause(image, master, tmp_path / "3", third)
        _kill(image, master, tmp_path / "4", Kill(fourth))
        _finish(image, master, tmp_path / "5")
    assert_same_trial(straight, master, storage)


@pytest.mark.slow
def test_a_trial_that_loses_ranks_equals_one_on_one_slot(
    image: Image, context: str, storage: Path, tmp_path: Path
) -> None:
    with StandInMaster(with_stops(storage, 2), context) as straight:
        _finish(image, straight, tmp_path / "straight")
    with StandInMaster(with_stops(storage, 2, slots=2), context) as master:
        first, second, third = _points(6, 3)
        _kill(image, master, tmp_path / "1", Kill(first, rank=1))
        _pause(image, master, tmp_path / "2", second)
        _kill(image, master, tmp_path / "3", Kill(third, rank=0))
        _finish(image, master, tmp_path / "4")
    assert_same_trial(straight, master, storage, rtol=SAME)
