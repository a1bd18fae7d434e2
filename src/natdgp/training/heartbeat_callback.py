"""Shows how far a rank is."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from natdgp.distributed.heartbeat import Heartbeat, Phase


class HeartbeatCallback(tf.keras.callbacks.Callback):
    """Notes every batch of training and validation that begins or ends.

    The last of all callbacks: a rank whose other callbacks hang has not begun the batch.
    """

    def __init__(self, heartbeat: Heartbeat, steps: int) -> None:
        """:param heartbeat: this rank's.
        :param steps: training steps completed before.
        """
        super().__init__()
        self._heartbeat = heartbeat
        self._steps = steps

    def wait(self) -> None:
        """What goes on between two kinds of work may take any time."""
        self._heartbeat.wait()

    def save(self) -> None:
        """Ranks compare what they hold; rank 0 saves, and others wait for it where they meet."""
        self._heartbeat.begin(Phase.SAVING, self._steps)

    def end(self) -> None:
        """Nothing that others wait for is left to do."""
        self._heartbeat.end()

    def arrive(self) -> None:
        """The rank has done its part of a collective, and waits for the others'."""
        self._heartbeat.note()

    def end_batch(self) -> None:
        """A training batch is complete, once the other callbacks are done."""
        self._steps += 1
        self._heartbeat.finish(self._steps)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._heartbeat.begin(Phase.TRAINING, self._steps)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._heartbeat.begin(Phase.VALIDATING, self._steps)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._heartbeat.finish(self._steps)
