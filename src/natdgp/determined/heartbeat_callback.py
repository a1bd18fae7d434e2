"""Shows how far a rank is."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from determined import workload

from natdgp.distributed.heartbeat import Pulse


class ShowsProgress(tf.keras.callbacks.Callback):
    """Notes every batch of training and validation that begins or ends."""

    def __init__(self, pulse: Pulse, steps: int) -> None:
        """:param pulse: this rank's.
        :param steps: training steps completed before.
        """
        super().__init__()
        self._pulse = pulse
        self._steps = steps

    def during(self, workloads: workload.Stream) -> workload.Stream:
        """The same workloads; what goes on between them, and saving, may take any time."""
        self._pulse.rest()
        for work, respond in workloads:
            if work.kind == workload.Workload.Kind.CHECKPOINT_MODEL:
                self._pulse.rest()
            else:
                self._pulse.note(self._steps)
            yield work, respond
            self._pulse.rest()

    def end(self) -> None:
        """Nothing that others wait for is left to do."""
        self._pulse.end()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._pulse.note(self._steps)

    def arrive(self) -> None:
        """The rank has done its part of a collective, and waits for the others'."""
        self._pulse.note(self._steps)

    def end_batch(self) -> None:
        """A training batch ends. The controller says so once the other callbacks are done; Keras
        would only when the next workload is there."""
        self._steps += 1
        self._pulse.note(self._steps)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._pulse.note(self._steps)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._pulse.note(self._steps)
