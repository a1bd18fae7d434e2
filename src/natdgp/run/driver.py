"""What a run on one machine does with the engine's steps: it writes, shows, saves and obeys."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf

from natdgp.run.durable_files import saving, settle, settle_all
from natdgp.run.interruptions import handling
from natdgp.run.journal import TRAINING, VALIDATION, Journal
from natdgp.run.rank_channel import RankChannel
from natdgp.run.run_folder import Checkpoint, RunFolder
from natdgp.run.stop_decisions import StopDecisions
from natdgp.training.event_files import EventFiles
from natdgp.training.loop import Metrics

logger = logging.getLogger("natdgp.run")

Write = Callable[[Path, Mapping[str, Any]], None]
"""Writes the model and the loop's state into a checkpoint's folder."""


class Observer(Protocol):
    """Watches a run, e.g. to show its progress."""

    def status(self, status: str) -> None:
        """The run turned to `training`, `validating` or `checkpointing`."""

    def training(self, steps: int, metrics: Mapping[str, float]) -> None:
        """Some training steps were taken."""

    def validation(self, steps: int, metrics: Mapping[str, float]) -> None:
        """A validation was made."""


class EndRequests:
    """SIGINT, SIGTERM and SIGHUP ask the run to save and end; a second one ends it at once.

    On several ranks, a signal to any of them, or to the command, asks rank 0.
    """

    def __init__(self, channel: RankChannel | None = None, *, leads: bool = True) -> None:
        """:param channel: between the ranks; None where there is one process.
        :param leads: whether this is rank 0.
        """
        self._channel = channel
        self._leads = leads
        self._signal: signal.Signals | None = None
        self._inside = contextlib.ExitStack()

    def __enter__(self) -> EndRequests:
        self._inside.enter_context(handling(self.ask))
        self._heed(True)
        return self

    def __exit__(self, *_: object) -> None:
        self._heed(False)
        self._inside.close()

    @property
    def received(self) -> signal.Signals | None:
        """What asks the run to end, if anything does."""
        if self._channel is not None and self._signal is None:
            self._signal = self._channel.asked
        return self._signal

    def ask(self, number: signal.Signals) -> None:
        """Ask the run to end as the signal does, unless something has asked already."""
        if self.received is None:
            self._signal = number
            if self._channel is not None:
                self._channel.ask_to_end(number)

    def _heed(self, heeds: bool) -> None:
        if self._channel is not None and self._leads:
            self._channel.heed(heeds)


class RunDriver:
    """Rank 0's: writes the journal and TensorBoard's files, and keeps the checkpoints."""

    def __init__(
        self,
        folder: RunFolder,
        journal: Journal,
        observer: Observer,
        requests: EndRequests,
        write: Write,
        *,
        keep_best: int,
        keep_latest: int,
        stop_decisions: StopDecisions | None = None,
    ) -> None:
        """:param requests: whether the run is to end.
        :param write: writes the model and the loop's state into a checkpoint's folder.
        :param keep_best: how many of the best validated checkpoints to keep.
        :param keep_latest: how many of the latest; at least two are always kept, so that a run
            whose latest is damaged has one to fall back to.
        :param stop_decisions: what to wait for after a validation; None outside a search.
        """
        self._folder = folder
        self._journal = journal
        self._observer = observer
        self._requests = requests
        self._write = write
        self._keep_best = keep_best
        self._keep_latest = max(keep_latest, 2)
        self._stop_decisions = stop_decisions
        self._events = EventFiles(folder.tensorboard)

    def status(self, status: str) -> None:
        """Show what the run turned to."""
        self._observer.status(status)

    def training(self, step: int, metrics: Metrics) -> None:
        """Keep and show training figures."""
        self._report(TRAINING, step, metrics)
        self._observer.training(step, metrics)

    def validation(self, step: int, metrics: Metrics) -> None:
        """Keep and show validation figures; in a search, wait to hear whether the run goes on."""
        self._report(VALIDATION, step, metrics)
        self._observer.validation(step, metrics)
        if self._stop_decisions and self._stop_decisions.stop(step):
            self._requests.ask(signal.SIGTERM)

    def wants_to_end(self) -> bool:
        """Whether something asks the run to end."""
        return self._requests.received is not None

    def _report(self, group: str, step: int, metrics: Metrics) -> None:
        self._journal.write(group, step, metrics)
        with saving(self._folder.tensorboard):
            for name, value in metrics.items():
                self._events.add_scalar(f"natdgp/{name}", value, step)
            self._events.flush()

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep a checkpoint, written aside and renamed when whole.

        :raises NotSaved: if the disk refuses.
        """
        checkpoint = self._folder.checkpoint(step)
        self._folder.clear_leftovers()
        aside = self._folder.aside(checkpoint)
        with saving(checkpoint.path):
            try:
                aside.mkdir(parents=True)
                note = json.dumps({"steps_completed": step})
                (aside / "metadata.json").write_text(note, encoding="utf-8")
                self._write(aside, state)
                settle_all(aside)
                if not self._has_whole(checkpoint):
                    os.replace(aside, checkpoint.path)
                    settle(checkpoint.path.parent)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        self.collect()

    def close(self) -> None:
        """End what is open."""
        with saving(self._folder.tensorboard):
            self._events.close()

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


class FollowingDriver:
    """Any other rank's: it keeps nothing, and ends when rank 0 does."""

    def status(self, status: str) -> None:
        """Nothing to show."""

    def training(self, step: int, metrics: Metrics) -> None:
        """Nothing to keep."""

    def validation(self, step: int, metrics: Metrics) -> None:
        """Nothing to keep."""

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Nothing to keep."""

    def wants_to_end(self) -> bool:
        """Rank 0 decides."""
        return False


def best_of(checkpoints: Iterable[Checkpoint], journal: Journal) -> list[Checkpoint]:
    """Those that were validated, best first."""
    validated = [
        (journal.rank(value), checkpoint)
        for checkpoint in checkpoints
        if (value := journal.value_at(checkpoint.steps)) is not None
    ]
    return [checkpoint for _, checkpoint in sorted(validated, key=lambda pair: pair[0])]


def use_gpu_of(rank: int) -> None:
    """Have this process use one GPU, if there are any, and no more of its memory than it needs."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices(gpus[rank], "GPU")
        tf.config.experimental.set_memory_growth(gpus[rank], True)
