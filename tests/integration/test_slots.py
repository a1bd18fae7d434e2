"""`natdgp train --slots 2`, real processes: it trains what one process trains."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import natdgp
from natdgp.run.journal import TRAINING, VALIDATION
from natdgp.run.run_folder import RunFolder
from natdgp.settings.experiment import read_experiment
from tests.conftest import FloatArray
from tests.integration.breaking import HANGS, LEAVES, STOPS, breaking_trial
from tests.integration.command import (
    ENVIRONMENT,
    NATDGP,
    await_line,
    descendants,
    finish,
    listened_on,
    listening,
    process_of,
    start,
    still_running,
)
from tests.integration.conftest import Bench, Watcher

SAME = 1e-8
"""Relative: the order of summation, over a dozen steps in float64."""

PROMPTLY = 60
"""Seconds within which a run that lost a rank has to end."""


def _predictions(folder: RunFolder) -> FloatArray:
    X = np.random.default_rng(1).normal(size=(20, 3))
    mean: FloatArray = natdgp.load(folder.checkpoints()[-1].path).predict(X).mean
    return mean


def _assert_same(bench: Bench, one: RunFolder, other: RunFolder) -> None:
    """Every report of two runs, and what their models predict."""
    for group in (TRAINING, VALIDATION):
        expected, got = bench.metrics(one, group), bench.metrics(other, group)
        assert expected.keys() == got.keys()
        for steps, figures in expected.items():
            assert figures.keys() == got[steps].keys()
            for name, value in figures.items():
                assert got[steps][name] == pytest.approx(value, rel=SAME), f"{name} at {steps}"
    np.testing.assert_allclose(_predictions(other), _predictions(one), rtol=SAME)


def _go_on_alone(bench: Bench, folder: RunFolder) -> None:
    folder.write_config(read_experiment(folder.config, ["resources.slots_per_trial=1"]).config)
    assert bench.go(folder).steps == 12


@pytest.fixture
def file(small_experiment: dict[str, Any], write_experiment: Callable[..., Path]) -> Path:
    return write_experiment(small_experiment)


@pytest.fixture
def straight(bench: Bench, small_experiment: dict[str, Any]) -> RunFolder:
    """An uninterrupted run in one process."""
    folder = bench.new(small_experiment, "straight")
    assert bench.go(folder).steps == 12
    return folder


def test_two_slots_train_what_one_process_trains(
    bench: Bench, straight: RunFolder, file: Path, tmp_path: Path
) -> None:
    status, out, err = finish(start(file, "--slots", "2", "--out", tmp_path / "two"))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"Writing to {tmp_path / 'two'}"
    assert len([line for line in lines if line.startswith("step ")]) == 6
    assert "Test figures on 30 rows (y)" in out

    two = RunFolder.open(tmp_path / "two")
    _assert_same(bench, straight, two)
    assert read_experiment(two.config).config["resources"]["slots_per_trial"] == 2
    (session,) = json.loads(two.manifest.read_text())["sessions"]
    assert (session["slots"], session["ended_as"], session["steps"]) == (2, "completed", 12)
    assert f"--slots 2 --out {tmp_path / 'two'}" in session["command"]
    assert len(list(two.tensorboard.glob("events.out.tfevents*"))) >= 1
    assert len({p.name.split(".")[-3] for p in two.tensorboard.iterdir()}) == 1  # one process's
    assert json.loads(two.summary.read_text())["steps"] == 12


def test_two_slots_aggregate_what_one_process_aggregates(
    bench: Bench,
    small_experiment: dict[str, Any],
    write_experiment: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
) -> None:
    """Determined's broadcast after the first batch would give rank 0's gradients to all."""
    small_experiment["optimizations"] = {"aggregation_frequency": 3}
    straight = bench.new(small_experiment, "straight")
    bench.go(straight)
    file = write_experiment(small_experiment)
    status, _, err = finish(start(file, "--slots", "2", "--out", tmp_path / "two"))
    assert (status, err) == (0, "")
    _assert_same(bench, straight, RunFolder.open(tmp_path / "two"))


@pytest.mark.slow
def test_interrupted_on_two_slots_and_resumed_on_one(
    bench: Bench, straight: RunFolder, file: Path, tmp_path: Path
) -> None:
    command = start(file, "--slots", "2", "--out", tmp_path / "two")
    await_line(command, "step 6/12")
    processes = descendants(command)
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does
    status, out, err = finish(command)
    assert (status, err) == (128 + signal.SIGINT, "")
    steps = int(re.findall(r"^SIGINT after step (\d+) of 12; everything is saved", out, re.M)[0])
    assert 6 <= steps < 12
    assert f"\n  natdgp train --resume {tmp_path / 'two'} --slots 2\n" in out
    assert still_running(processes) == []

    two = RunFolder.open(tmp_path / "two")
    assert [checkpoint.steps for checkpoint in two.checkpoints()][-1] == steps
    _go_on_alone(bench, two)
    _assert_same(bench, straight, two)
    assert read_experiment(two.config).config["resources"]["slots_per_trial"] == 1


@pytest.mark.slow
def test_interrupted_on_one_slot_and_resumed_on_two(
    bench: Bench, straight: RunFolder, small_experiment: dict[str, Any]
) -> None:
    folder = bench.new(small_experiment, "broken")
    interrupt = Watcher(act_at=6, act=lambda: os.kill(os.getpid(), signal.SIGINT))
    assert bench.go(folder, interrupt).steps == 6
    status, out, err = finish(start("--resume", folder.root, "--slots", "2"))
    assert (status, err) == (0, "")
    assert out.startswith(f"Going on with {folder.root} from step 6\n")
    _assert_same(bench, straight, folder)
    assert read_experiment(folder.config).config["resources"]["slots_per_trial"] == 2


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_rank_ends_the_run_which_can_be_resumed(
    bench: Bench, straight: RunFolder, file: Path, tmp_path: Path, rank: int
) -> None:
    command = start(file, "--slots", "2", "--out", tmp_path / "two")
    await_line(command, "step 6/12")  # a checkpoint was made after the validation at 4
    processes = descendants(command)
    ports = listening([psutil.Process(command.pid), *processes])
    process_of(processes, rank).kill()
    status, _, err = finish(command, timeout=PROMPTLY)
    assert status == 1
    assert f"natdgp train: rank {rank} of 2 was ended by SIGKILL after step " in err
    assert f"natdgp train --resume {tmp_path / 'two'} --slots 2" in err
    assert still_running(processes) == []
    assert listened_on(ports) == set()

    two = RunFolder.open(tmp_path / "two")
    _go_on_alone(bench, two)
    _assert_same(bench, straight, two)


LIMIT = 20
"""Seconds of --rank-timeout: silence, even on a busy machine; tracing may take longer."""


@pytest.mark.parametrize(
    ("how", "in_callback", "said"),
    [
        (STOPS, True, "rank 1 gave no sign of life"),
        pytest.param(HANGS, True, "rank 1 made no progress", marks=pytest.mark.slow),
        pytest.param(HANGS, False, "rank 1 made no progress", marks=pytest.mark.slow),
        pytest.param(LEAVES, True, "rank 1 gave no sign of life", marks=pytest.mark.slow),
    ],
    ids=["stopped", "hangs", "waits for data", "leaves"],
)
def test_a_rank_that_keeps_the_other_waiting_ends_the_run_by_name(
    small_experiment: dict[str, Any],
    write_experiment: Callable[..., Path],
    tmp_path: Path,
    how: str,
    in_callback: bool,
    said: str,
) -> None:
    (tmp_path / "mine.py").write_text(breaking_trial(how, in_callback=in_callback))
    entrypoint = small_experiment["entrypoint"].replace("trials.deep_gp:DeepGPTrial", "mine:Mine")
    file = write_experiment({**small_experiment, "entrypoint": entrypoint})
    options = ("--slots", "2", "--out", tmp_path / "two", "--rank-timeout", str(LIMIT))
    command = start(file, *options, cwd=tmp_path)
    await_line(command, "step 6/12")
    processes = descendants(command)
    ports = listening([psutil.Process(command.pid), *processes])
    assert ports
    status, _, err = finish(command, timeout=LIMIT + PROMPTLY)
    assert status == 1
    assert f"natdgp train: of 2 ranks, {said} for {LIMIT} s after step " in err
    assert int(err.partition("after step ")[2].partition(";")[0]) in (6, 7)
    assert "Saved up to step 4. Go on with:\n" in err
    assert still_running(processes) == []
    assert listened_on(ports) == set()


@pytest.mark.slow
def test_a_run_whose_command_was_killed_goes_on_at_once_though_its_ranks_were_stopped(
    bench: Bench, straight: RunFolder, file: Path, tmp_path: Path
) -> None:
    command = start(file, "--slots", "2", "--out", tmp_path / "two")
    await_line(command, "step 6/12")
    processes = descendants(command)
    ranks = [process_of(processes, rank) for rank in (0, 1)]
    for rank in ranks:
        rank.suspend()
    command.kill()
    command.communicate()
    status, _, err = finish(start("--resume", tmp_path / "two", "--slots", "1"))
    assert (status, err) == (0, "")
    assert still_running(processes) == []
    two = RunFolder.open(tmp_path / "two")
    _assert_same(bench, straight, two)


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the command puts temporary files; its path is short, as those of sockets must be."""
    with tempfile.TemporaryDirectory(prefix="natdgp-scratch-") as folder:
        monkeypatch.setitem(ENVIRONMENT, "TMPDIR", folder)
        yield Path(folder)


@pytest.mark.parametrize("stopped", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_nothing_is_left_of_a_command_that_is_killed(
    file: Path, tmp_path: Path, scratch: Path, *, stopped: bool
) -> None:
    """Also of a rank that is stopped, which cannot end of itself."""
    command = start(file, "--slots", "2", "--out", tmp_path / "two")
    await_line(command, "step 2/12" if stopped else "Writing to")
    processes = descendants(command)
    ports = listening([psutil.Process(command.pid), *processes])
    if stopped:
        process_of(processes, 1).suspend()
    command.kill()
    command.communicate()
    _, alive = psutil.wait_procs(processes, timeout=PROMPTLY)
    assert still_running(alive) == []
    assert listened_on(ports) == set()
    assert not [*scratch.glob("natdgp-*")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"adam": {"learning_rate": 1e300}},
        {  # which one rank alone proposes
            "natural_gradient": {
                "layers": "all",
                "gamma": 5.0,
                "positive_definite": "exact",
                "placement": "sharded",
            },
            "model": {"layers": 2, "inducing_points": 10, "likelihood": {"name": "student_t"}},
        },
    ],
    ids=["not finite", "an exact step that is too long, sharded"],
)
def test_a_breakdown_on_all_ranks_is_told_once(
    small_experiment: dict[str, Any],
    write_experiment: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
) -> None:
    small_experiment["hyperparameters"].update(changes)
    file = write_experiment(small_experiment)
    ended = [
        finish(start(file, "--slots", slots, "--out", tmp_path / slots)) for slots in ("1", "2")
    ]
    told = [re.findall(r"^The run broke down: .*", out, re.M) for _, out, _ in ended]
    assert told[0] == told[1]
    assert len(told[1]) == 1
    assert [(status, err) for status, _, err in ended] == [(1, ""), (1, "")]


@pytest.mark.slow
def test_an_exception_of_one_rank_is_shown_with_its_number(
    small_experiment: dict[str, Any], write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from natdgp.determined import DeepGPTrial\n\n\n"
        "class Mine(DeepGPTrial):\n"
        "    def keras_callbacks(self):\n"
        "        if self.context.distributed.rank == 1:\n"
        "            raise ValueError('my own mistake')\n"
        "        return super().keras_callbacks()\n"
    )
    entrypoint = small_experiment["entrypoint"].replace("trials.deep_gp:DeepGPTrial", "mine:Mine")
    file = write_experiment({**small_experiment, "entrypoint": entrypoint})
    done = subprocess.run(
        [NATDGP, "train", file, "--slots", "2", "--out", "two"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "natdgp train: rank 1 of 2 failed with exit status 1 before its first step; so all end"
    )
    assert done.stderr.endswith("ValueError: my own mistake\n")
    assert done.stderr.count("Traceback") == 1
    assert not (tmp_path / "two").exists()  # no step was taken: the name is free again


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ("3", "hyperparameters.global_batch_size: received 32; must be a multiple of"),
        ("0", "resources.slots_per_trial: received 0"),
        ("-2", "resources.slots_per_trial: received -2"),
    ],
)
def test_wrong_slots_are_refused_before_anything_is_made(
    file: Path, tmp_path: Path, slots: str, message: str
) -> None:
    status, out, err = finish(start(file, "--slots", slots, "--out", tmp_path / "two"))
    assert (status, out) == (2, "")
    assert message in err
    assert not (tmp_path / "two").exists()
