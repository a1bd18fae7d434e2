"""Determined's core contexts for a run without a cluster; they really record.

The controller and the sequencer above them are Determined's own, so that periods, policies and
preemption mean what they mean on a cluster.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from determined import core
from determined.core import DummyDistributedContext

from natdgp.run.durable_files import saving, settle, settle_all
from natdgp.run.interruptions import heeded
from natdgp.run.journal import TRAINING, VALIDATION, Journal
from natdgp.run.rank_channel import RankChannel
from natdgp.run.run_folder import Checkpoint, RunFolder
from natdgp.run.verdicts import Verdicts

logger = logging.getLogger("natdgp.run")


class Observer(Protocol):
    """Watches a run, e.g. to show its progress."""

    def status(self, status: str) -> None:
        """The run turned to `training`, `validating` or `checkpointing`."""

    def training(self, steps: int, metrics: Mapping[str, float]) -> None:
        """A workload of training steps ended."""

    def validation(self, steps: int, metrics: Mapping[str, float]) -> None:
        """A validation ended."""


class LocalTrainContext(core.DummyTrainContext):
    """Writes metrics to the run's journal and tells the observer."""

    def __init__(
        self,
        folder: RunFolder,
        journal: Journal,
        observer: Observer,
        preempt: SignalPreemptContext,
        verdicts: Verdicts | None = None,
    ) -> None:
        """:param preempt: is asked to end the run when it is judged so.
        :param verdicts: what to wait for after a validation; None outside a search.
        """
        super().__init__(tensorboard_path=folder.tensorboard)
        self._journal = journal
        self._observer = observer
        self._preempt = preempt
        self._verdicts = verdicts
        self.early_exit: core.EarlyExitReason | None = None

    def set_status(self, status: str) -> None:
        self._observer.status(status)

    def _get_last_validation(self) -> int | None:
        return self._journal.last_validation

    def get_experiment_best_validation(self) -> float | None:
        return self._journal.best_value

    def _report_trial_metrics(
        self,
        group: str,
        steps_completed: int,
        metrics: dict[str, Any],
        batch_metrics: list[dict[str, Any]] | None = None,
    ) -> None:
        self._journal.write(group, steps_completed, metrics)
        notify = {TRAINING: self._observer.training, VALIDATION: self._observer.validation}[group]
        notify(steps_completed, metrics)
        if group == VALIDATION and self._verdicts and self._verdicts.stop(steps_completed):
            self._preempt.ask(signal.SIGTERM)

    def upload_tensorboard_files(
        self,
        selector: Callable[[Path], bool] = lambda _: True,
        mangler: Callable[[Path, int], Path] = lambda path, _: path,
    ) -> None:
        """Nothing to do: they are written where they stay."""

    def report_early_exit(self, reason: core.EarlyExitReason) -> None:
        self.early_exit = reason

    def report_progress(self, progress: float) -> None:
        """Nothing to do: the observer sees every step."""


class SavedCheckpoints(core.CheckpointContext):
    """Reads the checkpoints in the run's folder; all that ranks other than 0 do with them."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def restore_path(self, storage_id: str, *args: Any, **kwargs: Any) -> Iterator[Path]:
        yield self._folder.root / "checkpoints" / storage_id


class LocalCheckpointContext(SavedCheckpoints):
    """Keeps checkpoints in the run's folder, written aside and renamed when whole."""

    def __init__(
        self, folder: RunFolder, journal: Journal, keep_best: int, keep_latest: int
    ) -> None:
        """:param keep_best: how many of the best validated checkpoints to keep.
        :param keep_latest: how many of the latest; at least two are always kept, so that a run
            whose latest is damaged has one to fall back to.
        """
        super().__init__(folder)
        self._journal = journal
        self._keep_best = keep_best
        self._keep_latest = max(keep_latest, 2)

    @contextlib.contextmanager
    def store_path(
        self, metadata: dict[str, Any] | None = None, *, shard: bool = False
    ) -> Iterator[tuple[Path, str]]:
        metadata = metadata or {}
        checkpoint = self._folder.checkpoint(metadata["steps_completed"])
        self._folder.clear_leftovers()
        aside = self._folder.aside(checkpoint)
        with saving(checkpoint.path):
            try:
                aside.mkdir(parents=True)
                (aside / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
                yield aside, checkpoint.path.name
                settle_all(aside)
                if not self._has_whole(checkpoint):
                    os.replace(aside, checkpoint.path)
                    settle(checkpoint.path.parent)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        self.collect()

    def _has_whole(self, checkpoint: Checkpoint) -> bool:
        """Whether it was saved before: same law, same content. A damaged one makes way."""
        if not os.path.lexists(checkpoint.path):
            return False
        problem = self._folder.set_aside_if_damaged(checkpoint)
        if problem is not None:
            logger.warning("%s; that checkpoint is set aside, and saved anew", problem)
        return problem is None

    def best(self) -> list[Checkpoint]:
        """Validated checkpoints, best first."""
        return best_of(self._folder.checkpoints(), self._journal)

    def collect(self) -> None:
        """Delete the checkpoints that are neither among the best nor among the latest."""
        checkpoints, best = self._folder.checkpoints(), self.best()
        kept = {*best[: self._keep_best], *checkpoints[-self._keep_latest :]}
        if checkpoints:  # before one goes that `best` may lead to
            first = next((one for one in best if one in kept), checkpoints[-1])
            self._folder.point_to_best(first.path)
        for checkpoint in checkpoints:
            if checkpoint not in kept:
                self._folder.remove(checkpoint)


def best_of(checkpoints: Iterable[Checkpoint], journal: Journal) -> list[Checkpoint]:
    """Those that were validated, best first."""
    validated = [
        (journal.rank(value), checkpoint)
        for checkpoint in checkpoints
        if (value := journal.value_at(checkpoint.steps)) is not None
    ]
    return [checkpoint for _, checkpoint in sorted(validated, key=lambda pair: pair[0])]


class LocalSearcherContext(core.DummySearcherContext):
    """One searcher operation of the configured length, in the configured unit."""

    def __init__(self, distributed: core.DistributedContext, max_length: Mapping[str, int]) -> None:
        ((unit, length),) = max_length.items()
        super().__init__(distributed, length)
        self._unit = core.Unit[unit.upper()]

    def get_configured_units(self) -> core.Unit:
        return self._unit

    def _operations(
        self, searcher_mode: core.SearcherMode = core.SearcherMode.WorkersAskChief
    ) -> Iterator[core.SearcherOperation]:
        yield _Operation(self._length, is_chief=self._dist.rank == 0)


class _Operation(core.DummySearcherOperation):
    def report_progress(self, length: float) -> None:
        """Nothing to do: the observer sees every step."""

    def report_completed(self, searcher_metric: float) -> None:
        self._completed = True


class SignalPreemptContext(core.DummyPreemptContext):
    """SIGINT, SIGTERM and SIGHUP ask the run to save and end; a second one ends it at once, but for
    SIGHUP, of which a terminal that is closed may send several.

    On several ranks, a signal to any of them, or to the command, asks rank 0.
    """

    def __init__(
        self, distributed: core.DistributedContext, channel: RankChannel | None = None
    ) -> None:
        """:param channel: between the ranks; None where there is one process."""
        super().__init__(distributed, core.PreemptMode.ChiefOnly)
        self.signal: signal.Signals | None = None
        self._channel = channel
        self._leads = distributed.rank == 0
        self._before: dict[signal.Signals, Any] = {}

    def start(self) -> SignalPreemptContext:
        super().start()
        for number in heeded():
            self._before[number] = signal.signal(number, self._ask)
        self._heed(True)
        return self

    def close(self) -> None:
        self._heed(False)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def ask(self, number: signal.Signals) -> None:
        """Ask the run to end as the signal would."""
        if self.signal is None:
            self._ask(number, None)

    def should_preempt(self, auto_ack: bool = True) -> bool:
        if self._channel is not None and self.signal is None:
            self.signal = self._channel.asked
        return self.signal is not None

    def _heed(self, heeds: bool) -> None:
        if self._channel is not None and self._leads:
            self._channel.heed(heeds)

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        self.signal = signal.Signals(number)
        if self._channel is not None:
            self._channel.ask_to_end(self.signal)
        for asked, handler in self._before.items():
            signal.signal(asked, signal.SIG_IGN if asked is signal.SIGHUP else handler)


def local_core_context(
    folder: RunFolder,
    journal: Journal,
    observer: Observer,
    *,
    max_length: Mapping[str, int],
    keep_best: int,
    keep_latest: int,
    distributed: core.DistributedContext | None = None,
    channel: RankChannel | None = None,
    verdicts: Verdicts | None = None,
) -> core.Context:
    """The core context of a run in one process, or of rank 0 of several."""
    distributed = distributed or DummyDistributedContext()
    preempt = SignalPreemptContext(distributed, channel)
    return core.Context(
        checkpoint=LocalCheckpointContext(folder, journal, keep_best, keep_latest),
        distributed=distributed,
        preempt=preempt,
        train=LocalTrainContext(folder, journal, observer, preempt, verdicts),
        searcher=LocalSearcherContext(distributed, max_length),
    )


def following_core_context(
    folder: RunFolder,
    *,
    max_length: Mapping[str, int],
    distributed: core.DistributedContext,
    channel: RankChannel,
) -> core.Context:
    """The core context of any other rank: it does what rank 0 tells it and writes nothing."""
    return core.Context(
        checkpoint=SavedCheckpoints(folder),
        distributed=distributed,
        preempt=SignalPreemptContext(distributed, channel),
        train=core.DummyTrainContext(tensorboard_path=folder.tensorboard),
        searcher=LocalSearcherContext(distributed, max_length),
    )
