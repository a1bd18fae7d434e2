"""Interrupted at random, again and again, a run ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natdgp.run.run_folder import RunFolder
from natdgp.settings.experiment import read_experiment
from tests.integration.command import await_line, descendants, finish, process_of, start
from tests.integration.conftest import Bench, Watcher
from tests.integration.states import assert_same_run

STEPS = 60
SAME = 1e-8
"""Relative: the order of summation over ranks."""


def _long(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """60 steps in which all that has a state of its own is at work, off each other's beat."""
    config["searcher"]["max_length"] = {"batches": STEPS}
    config["scheduling_unit"] = 1  # so that a signal is handled_signals after any step
    config["min_validation_period"] = {"batches": 9}
    config["min_checkpoint_period"] = {"batches": 11}
    config["records_per_epoch"] = 7 * 32
    hyperparameters = config["hyperparameters"]
    hyperparameters["model"] = {"layers": layers, "inducing_points": 5}
    hyperparameters["natural_gradient"] = {"gamma": 0.1, "gamma_initial": 1e-3, "ramp_steps": 40}
    hyperparameters["adam"] = {"learning_rate": 0.01}
    # Nothing improves by as much, so both count; the plateau lowers the rate three times.
    hyperparameters["reduce_lr_on_plateau"] = {"patience": 2, "min_delta": 100.0, "factor": 0.5}
    hyperparameters["early_stopping"] = {"patience": 5, "min_delta": 100.0}
    return config


def _points(seed: int, number: int) -> list[int]:
    """Steps to be interrupted after, in order."""
    return sorted(random.Random(seed).sample(range(1, STEPS - 1), number))


def _interrupt(bench: Bench, folder: RunFolder, point: int, number: signal.Signals) -> None:
    outcome = bench.go(folder, Watcher(act_at=point, act=lambda: os.kill(os.getpid(), number)))
    assert (outcome.signal, outcome.steps) == (number, point)


@pytest.mark.parametrize(
    ("layers", "seed", "interruptions"),
    [
        (1, 0, 2),
        *(pytest.param(1, seed, 6, marks=pytest.mark.slow) for seed in range(1, 4)),
        *(pytest.param(2, seed, 6, marks=pytest.mark.slow) for seed in range(4, 7)),
    ],
)
def test_a_run_interrupted_by_signals_equals_an_uninterrupted_one(
    bench: Bench, small_experiment: dict[str, Any], layers: int, seed: int, interruptions: int
) -> None:
    config = _long(small_experiment, layers)
    straight, broken = bench.new(config, "straight"), bench.new(config, "broken")
    assert bench.go(straight).steps == 54  # early stopping, at the sixth validation
    points = [point for point in _points(seed, interruptions) if point < 54]
    for index, point in enumerate(points):
        _interrupt(bench, broken, point, (signal.SIGINT, signal.SIGTERM)[(seed + index) % 2])
    assert bench.go(broken).steps == 54
    assert_same_run(straight, broken)


def _kill(file: Path, folder: Path, point: int, rank: int | None, *options: str) -> None:
    """Let the command train up to a point, and there kill it, or one of its ranks."""
    begun = ("--resume", folder) if folder.exists() else (file, "--out", folder)
    command = start(*begun, *options)
    await_line(command, f"step {point}/{STEPS}")
    if rank is None:
        command.kill()
        assert finish(command)[0] == -signal.SIGKILL
    else:
        process_of(descendants(command), rank).kill()
        assert finish(command)[0] == 1


@pytest.mark.parametrize(
    ("layers", "seed"),
    [
        (1, 7),  # in test_slots.py a rank is killed; in test_damage.py, whoever saves
        *(pytest.param(1, seed, marks=pytest.mark.slow) for seed in (8, 9)),
        *(pytest.param(2, seed, marks=pytest.mark.slow) for seed in (10, 11)),
    ],
)
def test_a_run_killed_outright_equals_an_uninterrupted_one(
    bench: Bench,
    small_experiment: dict[str, Any],
    write_experiment: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    layers: int,
    seed: int,
) -> None:
    config = _long(small_experiment, layers)
    straight = bench.new(config, "straight")
    bench.go(straight)
    file = write_experiment(config)
    _kill(file, tmp_path / "broken", random.Random(seed).randrange(12, 50), None)
    broken = RunFolder.open(tmp_path / "broken")
    assert broken.checkpoints()
    assert bench.go(broken).steps == 54
    assert_same_run(straight, broken)


@pytest.mark.slow
def test_a_run_on_two_slots_interrupted_and_killed_equals_one_that_was_not(
    small_experiment: dict[str, Any],
    write_experiment: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
) -> None:
    file = write_experiment(_long(small_experiment, 2))
    first, second = sorted(random.Random(14).sample(range(13, 50), 2))
    assert finish(start(file, "--out", tmp_path / "straight", "--slots", "2"))[0] == 0
    command = start(file, "--out", tmp_path / "broken", "--slots", "2")
    await_line(command, f"step {first}/{STEPS}")
    os.killpg(command.pid, signal.SIGINT)
    assert finish(command)[0] == 128 + signal.SIGINT
    _kill(file, tmp_path / "broken", second, 1, "--slots", "2")
    status, out, err = finish(start("--resume", tmp_path / "broken", "--slots", "2"))
    assert (status, err) == (0, ""), out
    straight, broken = (RunFolder.open(tmp_path / name) for name in ("straight", "broken"))
    assert broken.checkpoints()[-1].steps == 54
    assert_same_run(straight, broken)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [12, 13])
def test_a_run_that_loses_ranks_and_changes_slots_equals_one_in_one_process(
    bench: Bench,
    small_experiment: dict[str, Any],
    write_experiment: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    seed: int,
) -> None:
    config = _long(small_experiment, 2)
    straight = bench.new(config, "straight")
    bench.go(straight)
    file = write_experiment(config)
    first, second, third = sorted(random.Random(seed).sample(range(13, 50), 3))
    _kill(file, tmp_path / "broken", first, seed % 2, "--slots", "2")
    broken = RunFolder.open(tmp_path / "broken")
    broken.write_config(read_experiment(broken.config).with_slots(1).config)
    _interrupt(bench, broken, second, signal.SIGTERM)
    _kill(file, tmp_path / "broken", third, 1, "--slots", "2")
    status, out, err = finish(start("--resume", broken.root, "--slots", "2"))
    assert (status, err) == (0, ""), out
    assert_same_run(straight, broken, rtol=SAME)
