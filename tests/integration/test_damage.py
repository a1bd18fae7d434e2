"""Checkpoints are whole or absent, whatever ends a run, and a run goes on from a whole one."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import natdgp
from natdgp import cli
from natdgp.checkpoint.checksums import RECORD_NAME, verify_checksums
from natdgp.distributed.rank_channel import RankChannel
from natdgp.run.driver import RunDriver
from natdgp.run.durable_files import NotSaved
from natdgp.run.journal import Journal
from natdgp.run.run_display import Display
from natdgp.run.run_folder import RunFolder
from natdgp.run.run_session import fall_back, run_and_report
from natdgp.settings.experiment import read_experiment
from natdgp.training.loop import Plan
from tests.checkpoint_files import write_checkpoint
from tests.conftest import REPOSITORY, fill
from tests.integration.conftest import Bench, Watcher
from tests.integration.states import assert_same_run


@pytest.fixture
def shallow(small_experiment: dict[str, Any]) -> dict[str, Any]:
    """One layer and every checkpoint kept."""
    small_experiment["hyperparameters"]["model"] = {"layers": 1, "inducing_points": 5}
    small_experiment["checkpoint_storage"] = {"save_trial_latest": 9}
    small_experiment["checkpoint_policy"] = "all"
    return small_experiment


def _quietly(action: Callable[[Console], Any]) -> str:
    screen = io.StringIO()
    action(Console(file=screen, width=200, highlight=False, markup=False, emoji=False))
    return screen.getvalue()


def _fall_back(folder: RunFolder) -> str:
    experiment = read_experiment(folder.config)
    return _quietly(lambda console: fall_back(console, folder, experiment))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_a_run_falls_back_to_the_checkpoint_before_a_damaged_one(
    bench: Bench, shallow: dict[str, Any]
) -> None:
    folder = bench.new(shallow)
    bench.go(folder)
    training = bench.metrics(folder, "training")
    before = {
        c.steps: natdgp.load(c.path).predict([[0.0, 0.0, 0.0]]).mean for c in folder.checkpoints()
    }
    assert set(before) == {4, 8, 12}
    weights = "determined-keras-model-weights.data-00000-of-00001"
    _cut(folder.checkpoint(12).path / weights)
    _cut(folder.checkpoint(8).path / "natdgp-state.json")

    told = _fall_back(folder).splitlines()
    assert [line.rpartition("; ")[2] for line in told] == ["that checkpoint is left out"] * 2
    assert "step-00000008/natdgp-state.json has" in told[0]
    assert f"step-00000012/{weights} has" in told[1]
    assert folder.best.resolve() == folder.checkpoint(4).path  # at once
    shown = _quietly(lambda console: run_and_report(console, folder, live=False))
    assert f"Going on with {folder.root} from step 4\n" in shown
    assert bench.metrics(folder, "training") == training
    assert {
        c.steps: natdgp.load(c.path).predict([[0.0, 0.0, 0.0]]).mean for c in folder.checkpoints()
    } == before
    assert len(list((folder.root / "checkpoints").glob("damaged-*"))) == 2

    again = _quietly(lambda console: run_and_report(console, folder, live=False))
    assert "There is nothing left to train" in again


def test_by_default_there_is_a_checkpoint_before_the_latest_even_if_that_is_the_best(
    bench: Bench, shallow: dict[str, Any]
) -> None:
    del shallow["checkpoint_storage"], shallow["checkpoint_policy"]
    shallow["searcher"] |= {"max_length": {"batches": 8}, "metric": "val_loss"}  # which falls
    folder = bench.new(shallow)
    bench.go(folder)
    training = bench.metrics(folder, "training")
    assert folder.best.resolve() == folder.checkpoint(8).path
    _cut(folder.checkpoint(8).path / RECORD_NAME)
    shown = _quietly(lambda console: run_and_report(console, folder, live=False))
    assert f"Going on with {folder.root} from step 4\n" in shown
    assert bench.metrics(folder, "training") == training


def test_steps_whose_checkpoints_lost_their_records_are_taken_and_saved_again(
    bench: Bench, shallow: dict[str, Any]
) -> None:
    folder = bench.new(shallow)
    bench.go(folder)
    training = bench.metrics(folder, "training")
    for steps in (8, 12):
        (folder.checkpoint(steps).path / RECORD_NAME).unlink()
    told = _fall_back(folder)
    assert told.count("natdgp.json is missing; that checkpoint is left out") == 2
    assert bench.go(folder).steps == 12
    assert [checkpoint.steps for checkpoint in folder.checkpoints()] == [4, 8, 12]
    assert folder.set_damaged_aside() == []
    assert bench.metrics(folder, "training") == training


# What writing a checkpoint asks of the system, as Python's audit events name it.
WRITING = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def _killed_at(event: int, work: Callable[[], None]) -> bool:
    """Do the work in a process that kills itself before its n-th event; whether it came to that."""
    child = os.fork()
    if child == 0:
        left = [event]

        def count(name: str, _: object) -> None:
            if name in WRITING:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _save(folder: RunFolder, steps: int, files: int = 3) -> None:
    def write(path: Path, state: Mapping[str, Any]) -> None:
        for number in range(files):
            (path / f"more-{number}").write_text("numbers")
        write_checkpoint(path)

    journal = Journal(folder.metrics, Plan(length=99), up_to=steps)
    driver = RunDriver(folder, journal, Watcher(), RankChannel(), write, keep_best=1, keep_latest=1)
    driver.save(steps, {})


def test_killed_at_any_moment_of_saving_a_whole_checkpoint_is_there(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    _save(folder, 4)
    _save(folder, 8)
    seen = set()
    moment, killed = 0, True
    while killed:
        killed = _killed_at(moment, lambda: _save(folder, 12))
        moment += 1
        steps = tuple(checkpoint.steps for checkpoint in folder.checkpoints())
        seen.add(steps)
        for checkpoint in folder.checkpoints():
            verify_checksums(checkpoint.path)
        if steps != (4, 8):  # the next is killed a moment later, where this one began
            folder.remove(folder.checkpoint(12))
            if 4 not in steps:
                _save(folder, 4)
    # before, between renaming and collecting, and after
    assert seen == {(4, 8), (4, 8, 12), (8, 12)}
    assert moment > 20
    assert not list((folder.root / "checkpoints").glob(".*"))


def test_a_full_disk_ends_a_run_with_a_clear_error_and_its_last_checkpoint_whole(
    small_disk: Path,
    shallow: dict[str, Any],
    bench: Bench,
    write_experiment: Callable[[dict[str, Any]], Path],
) -> None:
    straight = bench.new(shallow, "straight")
    bench.go(straight)
    disk = Bench(small_disk, write_experiment)
    folder = disk.new(shallow)
    with pytest.raises(NotSaved, match=r"step-00000008 cannot be written: .*[Nn]o space left"):
        disk.go(folder, Watcher(act_at=6, act=lambda: fill(small_disk, free=16384)))
    assert [checkpoint.steps for checkpoint in folder.checkpoints()] == [4]
    verify_checksums(folder.checkpoint(4).path)
    assert not list((folder.root / "checkpoints").glob(".*"))

    (small_disk / "ballast").unlink()
    assert disk.go(folder).steps == 12
    assert_same_run(straight, folder)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`natdgp train` in this process, from the repository's root."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(cli, "silence_the_stack", lambda: None)
    return lambda *arguments: cli.main(["train", *map(str, arguments)])


def test_a_disk_without_a_free_byte_is_told_with_the_way_on(
    small_disk: Path,
    shallow: dict[str, Any],
    bench: Bench,
    write_experiment: Callable[[dict[str, Any]], Path],
    command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    straight = bench.new(shallow, "straight")
    bench.go(straight)
    training = Display.training

    def then_full(self: Display, steps: int, metrics: Any) -> None:
        training(self, steps, metrics)
        if steps == 6:
            monkeypatch.setattr(Display, "training", training)
            fill(small_disk)

    monkeypatch.setattr(Display, "training", then_full)
    run = small_disk / "run"
    assert command(write_experiment(shallow), "--out", run) == 1
    told = capsys.readouterr()
    assert re.search(r"^The run ended: .* cannot be written: .*[Nn]o space left", told.out, re.M)
    assert told.out.count("The run ended") == 1
    assert told.out.endswith(f"go on with:\n  natdgp train --resume {run}\n")

    assert command("--resume", run) == 1  # no room for its first word either
    assert "manifest.json cannot be written" in (again := capsys.readouterr().out)
    assert "Saved up to step 4. Once that" in again

    (small_disk / "ballast").unlink()
    assert command("--resume", run) == 0
    assert_same_run(straight, RunFolder.open(run))


def test_a_disk_that_is_full_from_the_start_is_told_and_nothing_is_left(
    small_disk: Path,
    shallow: dict[str, Any],
    write_experiment: Callable[[dict[str, Any]], Path],
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(small_disk)
    assert command(write_experiment(shallow), "--out", small_disk / "run") == 1
    out, err = capsys.readouterr()
    assert re.fullmatch("natdgp train: .* cannot be written: .*No space left on device.*\n", err)
    assert out == ""
    assert {path.name for path in small_disk.iterdir()} == {"ballast"}
