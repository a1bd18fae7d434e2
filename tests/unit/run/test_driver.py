"""What a run keeps and shows of its steps, and how it is asked to end."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from natdgp.checkpoint.checksums import RECORD_NAME, verify_checksums
from natdgp.run.driver import EndRequests, RunDriver
from natdgp.run.durable_files import NotSaved
from natdgp.run.journal import VALIDATION, Journal
from natdgp.run.rank_channel import RankChannel
from natdgp.run.run_folder import Checkpoint, RunFolder, read_json_lines
from natdgp.run.stop_decisions import StopDecisions
from tests.checkpoint_files import WEIGHTS, write_checkpoint


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


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def _journal(
    folder: RunFolder,
    validations: Mapping[int, float] | None = None,
    *,
    smaller_is_better: bool = True,
) -> Journal:
    journal = Journal(folder.metrics, up_to=0, metric="val_x", smaller_is_better=smaller_is_better)
    for steps, value in (validations or {}).items():
        journal.write(VALIDATION, steps, {"val_x": value})
    return journal


def _driver(
    folder: RunFolder,
    journal: Journal | None = None,
    keep_best: int = 1,
    keep_latest: int = 1,
    **others: Any,
) -> RunDriver:
    """One that writes the loop's state as a checkpoint's weights."""
    others = {
        "observer": Notes(),
        "requests": EndRequests(),
        "write": lambda path, state: write_checkpoint(path, state["weights"]),
        **others,
    }
    return RunDriver(
        folder, journal or _journal(folder), keep_best=keep_best, keep_latest=keep_latest, **others
    )


def _save(driver: RunDriver, steps: int, content: str = "whole") -> None:
    driver.save(steps, {"weights": content})


def _steps(folder: RunFolder) -> list[int]:
    return [checkpoint.steps for checkpoint in folder.checkpoints()]


def _names(folder: RunFolder) -> set[str]:
    return {path.name for path in (folder.root / "checkpoints").iterdir()}


def test_a_checkpoint_is_invisible_until_it_is_whole(folder: RunFolder) -> None:
    def write(path: Path, state: Mapping[str, Any]) -> None:
        write_checkpoint(path, state["weights"])
        assert _steps(folder) == before

    driver = _driver(folder, write=write)
    before: list[int] = []
    _save(driver, 4)
    before = [4]
    _save(driver, 8)
    assert _steps(folder) == [4, 8]
    note = json.loads((folder.checkpoint(4).path / "metadata.json").read_text())
    assert note == {"steps_completed": 4}


def test_a_failure_while_saving_leaves_the_earlier_checkpoint_and_no_new_one(
    folder: RunFolder,
) -> None:
    def fail(path: Path, _: Mapping[str, Any]) -> None:
        (path / "left over").touch()
        (path / RECORD_NAME).touch()
        raise OSError("disk full")

    _save(_driver(folder), 4)
    with pytest.raises(NotSaved, match="step-00000008 cannot be written: disk full"):
        _save(_driver(folder, write=fail), 8)
    assert _names(folder) == {"step-00000004"}
    verify_checksums(folder.checkpoint(4).path)
    # and the step can be saved anew, without what was left over
    _save(_driver(folder), 8)
    assert _names(folder) == {"step-00000004", "step-00000008"}
    assert not (folder.checkpoint(8).path / "left over").exists()


def test_a_step_saved_again_keeps_its_checkpoint(folder: RunFolder) -> None:
    """Same law, same content; to replace it, there would have to be a moment without it."""
    driver = _driver(folder)
    _save(driver, 4, "first")
    _save(driver, 4, "second")
    assert _names(folder) == {"step-00000004"}
    assert (folder.checkpoint(4).path / WEIGHTS).read_text() == "first"


@pytest.mark.parametrize("lost", [WEIGHTS, RECORD_NAME])
def test_a_damaged_checkpoint_makes_way_for_the_step_saved_again(
    folder: RunFolder, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    driver = _driver(folder)
    _save(driver, 4, "first")
    (folder.checkpoint(4).path / lost).unlink()
    _save(driver, 4, "second")
    assert _names(folder) == {"step-00000004", "damaged-step-00000004"}
    assert (folder.checkpoint(4).path / WEIGHTS).read_text() == "second"
    verify_checksums(folder.checkpoint(4).path)
    assert f"step-00000004/{lost} is missing; that checkpoint is set aside" in caplog.text


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
    folder: RunFolder, keep_best: int, keep_latest: int, smaller_is_better: bool, kept: list[int]
) -> None:
    values = {4: 5.0, 8: 1.0, 12: 4.0, 16: 2.0, 20: 3.0}
    everything = _driver(folder, keep_latest=9)
    for steps in values:
        _save(everything, steps)
    journal = _journal(folder, values, smaller_is_better=smaller_is_better)
    _driver(folder, journal, keep_best, keep_latest).collect()
    assert _steps(folder) == kept


def test_saving_collects_what_is_no_longer_needed(folder: RunFolder) -> None:
    journal = _journal(folder)
    driver = _driver(folder, journal)
    seen = []
    for steps, value in {4: 2.0, 8: 1.0, 12: 3.0, 16: 4.0}.items():
        journal.write(VALIDATION, steps, {"val_x": value})
        _save(driver, steps)
        seen.append(_steps(folder))
    assert seen == [[4], [4, 8], [8, 12], [8, 12, 16]]


def test_best_leads_to_a_checkpoint_at_any_time(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = RunFolder.remove

    def look(self: RunFolder, checkpoint: Checkpoint) -> None:
        assert folder.best.resolve() != checkpoint.path
        remove(self, checkpoint)

    monkeypatch.setattr(RunFolder, "remove", look)
    journal = _journal(folder)
    driver = _driver(folder, journal)
    seen = []
    for steps, value in {4: 2.0, 8: 1.0, 12: 3.0, 16: 0.5}.items():
        journal.write(VALIDATION, steps, {"val_x": value})
        _save(driver, steps)
        seen.append(folder.best.resolve())
    assert seen == [folder.checkpoint(steps).path for steps in (4, 8, 8, 16)]


def test_the_earliest_of_equally_good_checkpoints_is_the_best(folder: RunFolder) -> None:
    journal = _journal(folder, {4: 2.0, 8: 1.0, 12: 1.0, 16: 3.0, 20: 4.0})
    driver = _driver(folder, journal)
    everything = _driver(folder, journal, 9, 9)
    for steps in (4, 8, 12, 16, 20):
        _save(everything, steps)
    assert [checkpoint.steps for checkpoint in driver.best()] == [8, 12, 4, 16, 20]
    driver.collect()
    assert _steps(folder) == [8, 16, 20]


def test_a_checkpoint_without_a_validation_is_never_the_best(folder: RunFolder) -> None:
    driver = _driver(folder, _journal(folder, {4: 1.0}))
    for steps in (2, 4, 6, 8):
        _save(driver, steps)
    assert [checkpoint.steps for checkpoint in driver.best()] == [4]
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


@pytest.mark.usefixtures("hangup_heeded")
def test_the_first_signal_inside_asks_the_run_to_end() -> None:
    with EndRequests() as requests:
        assert requests.received is None
        signal.raise_signal(signal.SIGTERM)
        requests.ask(signal.SIGINT)
        assert requests.received is signal.SIGTERM


@pytest.fixture
def channel() -> Iterator[RankChannel]:
    with tempfile.TemporaryFile(buffering=0) as file:
        yield RankChannel(file, 2)


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_any_rank_asks_rank_0_to_end(channel: RankChannel, asked: int) -> None:
    ranks = [EndRequests(channel), EndRequests(channel, leads=False)]
    with ranks[0]:
        assert ranks[0].received is None
        ranks[asked].ask(signal.SIGTERM)
        assert ranks[0].received is signal.SIGTERM


def test_only_rank_0_says_that_it_heeds_requests(channel: RankChannel) -> None:
    with EndRequests(channel, leads=False):
        assert not channel.heeds
        with EndRequests(channel):
            assert channel.heeds
        assert not channel.heeds


def test_the_command_asks_through_the_channel(channel: RankChannel) -> None:
    requests = EndRequests(channel)
    channel.ask_to_end(signal.SIGINT)
    assert requests.received is signal.SIGINT
