"""What a run keeps and shows of its steps, and how it is asked to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from natdgp.checkpoint.checksums import RECORD_NAME, verify_checksums
from natdgp.distributed.rank_channel import RankChannel
from natdgp.run.driver import RunDriver
from natdgp.run.durable_files import NotSaved
from natdgp.run.journal import VALIDATION, Journal
from natdgp.run.run_folder import Checkpoint, RunFolder, read_json_lines
from natdgp.run.stop_decisions import StopDecisions
from natdgp.training.loop import Plan
from tests.checkpoint_files import write_checkpoint


class Notes:
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def status(self, status: str) -> None:
        self.told.append(status)

    def training(self, steps: int, metrics: Mapping[str, float]) -> None:
        self.told.append(("training", steps, dict(metrics)))

    def validation(self, steps: int, metrics: Mapping[str, float]) -> None:
        self.told.append(("validation", steps, dict(metrics)))


def _driver(
    folder: RunFolder,
    values: Mapping[int, float] | None = None,
    keep_best: int = 1,
    keep_latest: int = 1,
    smaller_is_better: bool = True,
    **others: Any,
) -> RunDriver:
    """Of a run with these validations."""
    plan = Plan(length=99, judge="val_x", smaller_is_better=smaller_is_better)
    journal = Journal(folder.metrics, plan, up_to=-1)
    for steps, value in (values or {}).items():
        journal.write(VALIDATION, steps, {"val_x": value})
    parts = {
        "observer": Notes(),
        "channel": RankChannel(),
        "write": lambda path, _: write_checkpoint(path),
        "keep_best": keep_best,
        "keep_latest": keep_latest,
        **others,
    }
    return RunDriver(folder, journal, **parts)


def _steps(folder: RunFolder) -> list[int]:
    return [checkpoint.steps for checkpoint in folder.checkpoints()]


def test_a_checkpoint_is_invisible_until_it_is_whole(folder: RunFolder) -> None:
    def write(path: Path, _: Mapping[str, Any]) -> None:
        write_checkpoint(path)
        assert _steps(folder) == before

    driver = _driver(folder, write=write)
    before: list[int] = []
    driver.save(4, {})
    before = [4]
    driver.save(8, {})
    assert _steps(folder) == [4, 8]


def test_a_failure_while_saving_leaves_the_earlier_checkpoint_and_no_new_one(
    folder: RunFolder,
) -> None:
    def fail(path: Path, _: Mapping[str, Any]) -> None:
        (path / "left over").touch()
        (path / RECORD_NAME).touch()
        raise OSError("disk full")

    _driver(folder).save(4, {})
    with pytest.raises(NotSaved, match="step-00000008 cannot be written: disk full"):
        _driver(folder, write=fail).save(8, {})
    (only,) = (folder.root / "checkpoints").iterdir()
    assert only == folder.checkpoint(4).path
    verify_checksums(only)
    # and the step can be saved anew, without what was left over
    _driver(folder).save(8, {})
    assert _steps(folder) == [4, 8]
    assert not (folder.checkpoint(8).path / "left over").exists()


def test_a_checkpoint_is_never_overwritten(folder: RunFolder) -> None:
    _driver(folder).save(4, {})
    other = _driver(folder, write=lambda path, _: write_checkpoint(path, "others"))
    with pytest.raises(NotSaved, match="step-00000004 cannot be written: Directory not empty"):
        other.save(4, {})
    verify_checksums(folder.checkpoint(4).path)


@pytest.mark.parametrize(
    ("keep_best", "keep_latest", "smaller_is_better", "kept"),
    [
        (1, 1, True, [8, 16, 20]),
        (1, 1, False, [4, 16, 20]),
        (4, 1, True, [8, 12, 16, 20]),
        (0, 1, True, [16, 20]),
        (0, 0, True, [16, 20]),  # a run must be able to go on, and from an earlier one if need be
        (0, 2, True, [16, 20]),
        (1, 3, True, [8, 12, 16, 20]),
        (9, 1, True, [4, 8, 12, 16, 20]),
    ],
)
def test_the_best_and_the_latest_are_kept(
    folder: RunFolder,
    put: Callable[[int], Checkpoint],
    keep_best: int,
    keep_latest: int,
    smaller_is_better: bool,
    kept: list[int],
) -> None:
    values = {4: 5.0, 8: 1.0, 12: 4.0, 16: 2.0, 20: 3.0}
    for steps in values:
        put(steps)
    _driver(folder, values, keep_best, keep_latest, smaller_is_better).collect()
    assert _steps(folder) == kept


def test_best_leads_to_the_best_checkpoint_that_is_kept_at_any_time(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = RunFolder.remove

    def look(self: RunFolder, checkpoint: Checkpoint) -> None:
        assert folder.best.resolve() != checkpoint.path
        remove(self, checkpoint)

    monkeypatch.setattr(RunFolder, "remove", look)
    driver = _driver(folder)
    seen = []
    for steps, value in {4: 2.0, 8: 1.0, 12: 3.0, 16: 0.5}.items():
        driver.validation(steps, {"val_x": value})
        driver.save(steps, {})
        seen.append((folder.best.resolve(), _steps(folder)))
    best = [folder.checkpoint(steps).path for steps in (4, 8, 8, 16)]
    assert seen == [*zip(best, [[4], [4, 8], [8, 12], [12, 16]], strict=True)]


def test_the_earliest_of_equally_good_checkpoints_is_the_best(
    folder: RunFolder, put: Callable[[int], Checkpoint]
) -> None:
    values = {4: 2.0, 8: 1.0, 12: 1.0, 16: 3.0, 20: 4.0}
    for steps in values:
        put(steps)
    _driver(folder, values).collect()
    assert _steps(folder) == [8, 16, 20]


def test_a_checkpoint_without_a_validation_is_never_the_best(folder: RunFolder) -> None:
    driver = _driver(folder, {4: 1.0})
    for steps in (2, 4, 6, 8):
        driver.save(steps, {})
    assert folder.best.resolve() == folder.checkpoint(4).path
    assert _steps(folder) == [4, 6, 8]


@pytest.mark.parametrize("stop", [False, True])
def test_a_run_of_a_search_waits_for_its_verdict_and_ends_if_told_to(
    folder: RunFolder, stop: bool
) -> None:
    stop_decisions, notes = StopDecisions(folder.stop_decisions), Notes()
    driver = _driver(folder, observer=notes, stop_decisions=stop_decisions)
    threading.Timer(0.2, stop_decisions.give, (4,), {"stop": stop}).start()
    driver.validation(2, {"val_x": 0.5})  # judged long ago, when told of 4
    assert not driver.wants_to_end()
    driver.validation(4, {"val_x": 0.5})
    assert driver.wants_to_end() == stop
    assert notes.told == [("validation", steps, {"val_x": 0.5}) for steps in (2, 4)]


def test_reports_reach_journal_observer_and_tensorboard(folder: RunFolder) -> None:
    notes = Notes()
    driver = _driver(folder, observer=notes)
    driver.status("training")
    driver.training(2, {"loss": 1.0})
    driver.validation(2, {"val_x": 0.5})
    driver.close()
    reports = [
        ("training", 2, {"loss": 1.0}),
        ("validation", 2, {"val_x": 0.5}),
    ]
    assert notes.told == ["training", *reports]
    written = read_json_lines(folder.metrics)
    assert [(one["group"], one["steps_completed"], one["metrics"]) for one in written] == reports
    (events,) = folder.tensorboard.iterdir()
    assert b"natdgp/val_x" in events.read_bytes()
