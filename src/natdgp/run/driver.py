"""What a run on one machine does with the engine's steps: it writes, shows, saves and obeys."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from natdgp.distributed.rank_channel import RankChannel
from natdgp.run.durable_files import saving
from natdgp.run.journal import TRAINING, VALIDATION, Journal
from natdgp.run.run_folder import RunFolder, link_to
from natdgp.run.stop_decisions import StopDecisions
from natdgp.training.event_files import EventFiles
from natdgp.training.loop import Metrics

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


class RunDriver:
    """Rank 0's: writes the journal and TensorBoard's files, and keeps the checkpoints."""

    def __init__(
        self,
        folder: RunFolder,
        journal: Journal,
        observer: Observer,
        channel: RankChannel,
        write: Write,
        *,
        keep_best: int,
        keep_latest: int,
        stop_decisions: StopDecisions | None = None,
    ) -> None:
        """:param channel: says whether the run is to end.
        :param keep_best: how many of the best validated checkpoints to keep.
        :param keep_latest: how many of the latest; at least two are always kept, so that a run
            whose latest is damaged has one to fall back to.
        :param stop_decisions: what to wait for after a validation; None outside a search.
        """
        self._folder = folder
        self._journal = journal
        self._observer = observer
        self._channel = channel
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
            self._channel.ask_to_end(signal.SIGTERM)

    def wants_to_end(self) -> bool:
        """Whether something asks the run to end."""
        return self._channel.asked is not None

    def _report(self, group: str, step: int, metrics: Metrics) -> None:
        self._journal.write(group, step, metrics)
        with saving(self._folder.tensorboard):
            for name, value in metrics.items():
                self._events.add_scalar(f"natdgp/{name}", value, step)
            self._events.flush()

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep a checkpoint.

        :raises NotSaved: if the disk refuses.
        """
        with self._folder.saving(self._folder.checkpoint(step)) as place:
            self._write(place, state)
        self.collect()

    def close(self) -> None:
        """End what is open."""
        with saving(self._folder.tensorboard):
            self._events.close()

    def collect(self) -> None:
        """Delete the checkpoints that are neither among the best nor among the latest."""
        checkpoints = self._folder.checkpoints()
        best = self._journal.best_first(checkpoints)[: self._keep_best]
        kept = [one for one in checkpoints if one in (*best, *checkpoints[-self._keep_latest :])]
        if (first := self._journal.best(kept)) is not None:  # before one goes that it may lead to
            link_to(self._folder.best, first.path)
        for checkpoint in checkpoints:
            if checkpoint not in kept:
                self._folder.remove(checkpoint)


class FollowingDriver:
    """Any other rank's: it keeps nothing, and ends when rank 0 does."""

    def _ignore(self, *_: Any, **__: Any) -> None:
        """Rank 0 shows and keeps it."""

    status = training = validation = save = _ignore

    def wants_to_end(self) -> bool:
        """Rank 0 decides."""
        return False
