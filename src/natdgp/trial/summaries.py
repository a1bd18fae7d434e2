"""TensorBoard files where the context says they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from determined import tensorboard


class SummaryWriter(tensorboard.MetricWriter):
    """Writes scalars as TensorBoard event files, a new file after every reset.

    Determined uploads files between resets and takes closed ones for final.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = str(folder)
        self._writer: tf.summary.SummaryWriter | None = None

    def add_scalar(self, name: str, value: int | float | np.number[Any], step: int) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._folder)
        with self._writer.as_default():
            # Arrays: TensorFlow remembers every number of Python's that it was ever given.
            tf.summary.scalar(name, np.array(value), step=np.array(step, np.int64))

    def reset(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()
