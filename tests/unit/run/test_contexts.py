from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from determined import core
from determined.core import DummyDistributedContext

from natdgp.checkpoint.checksums import RECORD_NAME, check_seal
from natdgp.run.contexts import (
    LocalCheckpointContext,
    LocalSearcherContext,
    LocalTrainContext,
    SignalPreemptContext,
    following_core_context,
    local_core_context,
)
from natdgp.run.durable_files import NotSaved
from natdgp.run.journal import VALIDATION, Journal
from natdgp.run.rank_channel import RankChannel
from natdgp.run.run_folder import Checkpoint, RunFolder
from natdgp.run.verdicts import Verdicts
from tests.sealed import WEIGHTS, write_checkpoint


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


def _save(context: LocalCheckpointContext, steps: int, content: str = "whole") -> str:
    with context.store_path({"steps_completed": steps}) as (path, storage_id):
        write_checkpoint(path, content)
    return storage_id


def _steps(folder: RunFolder) -> list[int]:
    return [checkpoint.steps for checkpoint in folder.checkpoints()]


def _names(folder: RunFolder) -> set[str]:
    return {path.name for path in (folder.root / "checkpoints").iterdir()}


def test_a_saved_checkpoint_is_restored_by_its_id(folder: RunFolder) -> None:
    context = LocalCheckpointContext(folder, _journal(folder), 1, 1)
    storage_id = _save(context, 4)
    with context.restore_path(storage_id) as path:
        assert (path / WEIGHTS).read_text() == "whole"
        assert json.loads((path / "metadata.json").read_text()) == {"steps_completed": 4}
    assert folder.checkpoints()[0].path == path


def test_a_checkpoint_is_invisible_until_it_is_whole(folder: RunFolder) -> None:
    context = LocalCheckpointContext(folder, _journal(folder), 1, 1)
    _save(context, 4)
    with context.store_path({"steps_completed": 8}) as (path, _):
        (path / RECORD_NAME).touch()
        assert _steps(folder) == [4]
    assert _steps(folder) == [4, 8]


def test_a_failure_while_saving_leaves_the_earlier_checkpoint_and_no_new_one(
    folder: RunFolder,
) -> None:
    context = LocalCheckpointContext(folder, _journal(folder), 1, 1)
    _save(context, 4)

    def fail() -> None:
        with context.store_path({"steps_completed": 8}) as (path, _):
            (path / "left over").touch()
            (path / RECORD_NAME).touch()
            raise OSError("disk full")

    with pytest.raises(NotSaved, match="step-00000008 cannot be written: disk full"):
        fail()
    assert _names(folder) == {"step-00000004"}
    assert _steps(folder) == [4]
    with context.restore_path(folder.checkpoints()[0].path.name) as path:
        assert (path / WEIGHTS).read_text() == "whole"
    # and the step can be saved anew, without what was left over
    _save(context, 8)
    assert _names(folder) == {"step-00000004", "step-00000008"}
    assert not (folder.checkpoint(8).path / "left over").exists()


def test_a_step_saved_again_keeps_its_checkpoint(folder: RunFolder) -> None:
    """Same law, same content; to replace it, there would have to be a moment without it."""
    context = LocalCheckpointContext(folder, _journal(folder), 1, 1)
    _save(context, 4, "first")
    _save(context, 4, "second")
    assert _names(folder) == {"step-00000004"}
    assert (folder.checkpoint(4).path / WEIGHTS).read_text() == "first"


@pytest.mark.parametrize("lost", [WEIGHTS, RECORD_NAME])
def test_a_damaged_checkpoint_makes_way_for_the_step_saved_again(
    folder: RunFolder, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    context = LocalCheckpointContext(folder, _journal(folder), 1, 1)
    _save(context, 4, "first")
    (folder.checkpoint(4).path / lost).unlink()
    _save(context, 4, "second")
    assert _names(folder) == {"step-00000004", "damaged-step-00000004"}
    assert (folder.checkpoint(4).path / WEIGHTS).read_text() == "second"
    check_seal(folder.checkpoint(4).path)
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
    everything = LocalCheckpointContext(folder, _journal(folder), 0, 9)
    for steps in values:
        _save(everything, steps)
    journal = _journal(folder, values, smaller_is_better=smaller_is_better)
    LocalCheckpointContext(folder, journal, keep_best, keep_latest).collect()
    assert _steps(folder) == kept


def test_saving_collects_what_is_no_longer_needed(folder: RunFolder) -> None:
    journal = _journal(folder)
    context = LocalCheckpointContext(folder, journal, 1, 1)
    seen = []
    for steps, value in {4: 2.0, 8: 1.0, 12: 3.0, 16: 4.0}.items():
        journal.write(VALIDATION, steps, {"val_x": value})
        _save(context, steps)
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
    context = LocalCheckpointContext(folder, journal, 1, 1)
    seen = []
    for steps, value in {4: 2.0, 8: 1.0, 12: 3.0, 16: 0.5}.items():
        journal.write(VALIDATION, steps, {"val_x": value})
        _save(context, steps)
        seen.append(folder.best.resolve())
    assert seen == [folder.checkpoint(steps).path for steps in (4, 8, 8, 16)]


def test_the_earliest_of_equally_good_checkpoints_is_the_best(folder: RunFolder) -> None:
    journal = _journal(folder, {4: 2.0, 8: 1.0, 12: 1.0, 16: 3.0, 20: 4.0})
    context = LocalCheckpointContext(folder, journal, 1, 1)
    everything = LocalCheckpointContext(folder, journal, 9, 9)
    for steps in (4, 8, 12, 16, 20):
        _save(everything, steps)
    assert [checkpoint.steps for checkpoint in context.best()] == [8, 12, 4, 16, 20]
    context.collect()
    assert _steps(folder) == [8, 16, 20]


def test_a_checkpoint_without_a_validation_is_never_the_best(folder: RunFolder) -> None:
    context = LocalCheckpointContext(folder, _journal(folder, {4: 1.0}), 1, 1)
    for steps in (2, 4, 6, 8):
        _save(context, steps)
    assert [checkpoint.steps for checkpoint in context.best()] == [4]
    assert _steps(folder) == [4, 6, 8]


def _preempt() -> SignalPreemptContext:
    return SignalPreemptContext(DummyDistributedContext())


@pytest.mark.parametrize("stop", [False, True])
def test_a_run_of_a_search_waits_for_its_verdict_and_ends_if_told_to(
    folder: RunFolder, stop: bool
) -> None:
    verdicts, preempt, notes = Verdicts(folder.verdicts), _preempt(), Notes()
    context = LocalTrainContext(folder, _journal(folder), notes, preempt, verdicts)
    threading.Timer(0.2, verdicts.give, (4,), {"stop": stop}).start()
    context.report_validation_metrics(2, {"val_x": 0.5})  # judged long ago, when told of 4
    assert not preempt.should_preempt()
    context.report_validation_metrics(4, {"val_x": 0.5})
    assert preempt.should_preempt() == stop
    assert notes.told == [("validation", steps, {"val_x": 0.5}) for steps in (2, 4)]


def test_reports_reach_journal_and_observer(folder: RunFolder) -> None:
    notes = Notes()
    journal = _journal(folder)
    context = LocalTrainContext(folder, journal, notes, _preempt())
    context.set_status("training")
    context.report_training_metrics(2, {"loss": 1.0})
    assert (context._get_last_validation(), context.get_experiment_best_validation()) == (
        None,
        None,
    )
    context.report_validation_metrics(2, {"val_x": 0.5})
    assert notes.told == [
        "training",
        ("training", 2, {"loss": 1.0}),
        ("validation", 2, {"val_x": 0.5}),
    ]
    assert (context._get_last_validation(), context.get_experiment_best_validation()) == (2, 0.5)
    assert context.get_tensorboard_path() == folder.tensorboard


def test_an_early_exit_is_remembered(folder: RunFolder) -> None:
    context = LocalTrainContext(folder, _journal(folder), Notes(), _preempt())
    assert context.early_exit is None
    context.report_early_exit(core.EarlyExitReason.INVALID_HP)
    assert context.early_exit == core.EarlyExitReason.INVALID_HP


@pytest.mark.parametrize("unit", ["batches", "records", "epochs"])
def test_there_is_one_searcher_operation_of_the_configured_length(unit: str) -> None:
    context = LocalSearcherContext(DummyDistributedContext(), {unit: 7})
    assert context.get_configured_units() == core.Unit[unit.upper()]
    lengths = []
    for operation in context._operations(core.SearcherMode.ChiefOnly):
        lengths.append(operation.length)
        operation.report_progress(3.0)
        operation.report_completed(0.5)
    assert lengths == [7]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals) -> None:
    received: list[int] = []
    asked = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, lambda n, _: received.append(n)) for each in asked}
    handlers = {each: signal.getsignal(each) for each in asked}
    try:
        context = SignalPreemptContext(DummyDistributedContext())
        os.kill(os.getpid(), number)  # before the start, a signal is none of its business
        context.start()
        assert {signal.getsignal(each) for each in asked}.isdisjoint(handlers.values())
        assert not context.should_preempt()
        os.kill(os.getpid(), number)
        assert context.should_preempt()
        assert context.signal == number
        assert received == [number]
        os.kill(os.getpid(), number)
        assert received == [number, number]
        context.close()
        assert {each: signal.getsignal(each) for each in asked} == handlers
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class Rank(DummyDistributedContext):
    """One of two, without the other."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.size = rank, 2


@pytest.fixture
def channel() -> Iterator[RankChannel]:
    with tempfile.TemporaryFile(buffering=0) as file:
        yield RankChannel(file, 2)


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_any_rank_asks_rank_0_to_end(channel: RankChannel, asked: int) -> None:
    ranks = [SignalPreemptContext(Rank(rank), channel) for rank in (0, 1)]
    ranks[0].start()
    assert not ranks[0].should_preempt()
    ranks[asked]._ask(signal.SIGTERM, None)
    assert ranks[0].should_preempt()
    assert ranks[0].signal is signal.SIGTERM
    ranks[0].close()


def test_only_rank_0_says_that_it_heeds_requests(channel: RankChannel) -> None:
    first, second = (SignalPreemptContext(Rank(rank), channel) for rank in (0, 1))
    second.start()
    assert not channel.heeds
    first.start()
    assert channel.heeds
    second.close()
    assert channel.heeds
    first.close()
    assert not channel.heeds


def test_the_command_asks_through_the_channel(channel: RankChannel) -> None:
    context = SignalPreemptContext(Rank(0), channel)
    context.start()
    channel.ask_to_end(signal.SIGINT)
    assert context.should_preempt()
    assert context.signal is signal.SIGINT
    context.close()


def test_a_following_rank_reads_checkpoints_and_writes_nothing(
    folder: RunFolder, channel: RankChannel
) -> None:
    _save(LocalCheckpointContext(folder, _journal(folder), 1, 1), 4)
    before = {path: path.lstat().st_mtime_ns for path in folder.root.rglob("*")}
    distributed = Rank(1)
    context = following_core_context(
        folder,
        max_length={"batches": 4},
        distributed=distributed,
        channel=channel,
    )
    with context.checkpoint.restore_path("step-00000004") as path:
        assert path == folder.checkpoint(4).path
    context.train.upload_tensorboard_files()
    context.train.set_status("training")
    assert context.train.get_tensorboard_path() == folder.tensorboard
    assert context.distributed is distributed
    assert not isinstance(context.checkpoint, LocalCheckpointContext)
    assert {path: path.lstat().st_mtime_ns for path in folder.root.rglob("*")} == before


def test_handlers_are_restored_after_a_run_without_signals() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    context = SignalPreemptContext(DummyDistributedContext())
    context.start()
    context.close()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert not context.should_preempt()


def test_the_parts_make_one_core_context(folder: RunFolder) -> None:
    context = local_core_context(
        folder,
        _journal(folder),
        Notes(),
        max_length={"batches": 4},
        keep_best=1,
        keep_latest=1,
    )
    assert isinstance(context.checkpoint, LocalCheckpointContext)
    assert isinstance(context.preempt, SignalPreemptContext)
    assert isinstance(context.train, LocalTrainContext)
    assert isinstance(context.searcher, LocalSearcherContext)
    assert context.distributed.size == 1
