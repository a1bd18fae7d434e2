"""Gradients of several batches, kept until the optimizers take one step with all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from natdgp.distributed.packing import packed_sum, unpacked_means
from natdgp.distributed.reducer import Reducer


@dataclass(frozen=True)
class Aggregation:
    """Several batches, one step of the optimizers: equal to one batch of all their rows."""

    frequency: int = 1
    """k, the batches of a step."""
    average: bool = True
    """Whether gradients of the k batches are averaged; else they are summed."""


class Aggregator:
    """What a rank has added up since the last step; over ranks it is added up once a step.

    It is no part of the model's variables: a checkpoint has a file for it, and runs that aggregate
    otherwise, or not at all, can begin with that checkpoint too.
    """

    FILE_NAME = "natdgp-aggregated.npy"

    def __init__(
        self, aggregation: Aggregation, parameters: Sequence[tf.Variable], reducer: Reducer
    ) -> None:
        """:param aggregation: how many batches, and how.
        :param parameters: what gradients are taken of.
        :param reducer: adds up over ranks.
        """
        self._aggregation = aggregation
        self._reducer = reducer
        size = sum(parameter.shape.num_elements() for parameter in parameters)
        dtype = parameters[0].dtype
        self.kept = tf.Variable(tf.zeros([size + 1], dtype), trainable=False, name="aggregated")
        """[T + 1], the sum of :func:`natdgp.distributed.packed_sum` vectors since the last step."""

    def add(self, gradients: Sequence[tf.Tensor], examples: tf.Tensor) -> None:
        """Keep the mean gradients of one batch."""
        self.kept.assign_add(packed_sum(gradients, examples), read_value=False)

    def is_complete(self, step: tf.Tensor) -> tf.Tensor:
        """Whether the batch of this step, counted from 0, is the last of its k."""
        return tf.equal((step + 1) % self._aggregation.frequency, 0)

    def take(self, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradients of all batches and ranks since the last step, which are then forgotten."""
        means = unpacked_means(self._reducer.total(self.kept), like)
        with tf.control_dependencies(means):
            self.kept.assign(tf.zeros_like(self.kept), read_value=False)
        factor = 1 if self._aggregation.average else self._aggregation.frequency
        return [mean * factor for mean in means]

    def gather(self) -> None:
        """Bring what all ranks have kept to rank 0, whose checkpoint then holds it."""
        total = self._reducer.total(self.kept)
        self.kept.assign(total if self._reducer.rank == 0 else tf.zeros_like(total))

    def save(self, folder: Path) -> None:
        """Write what rank 0 has gathered into a checkpoint's folder."""
        np.save(folder / self.FILE_NAME, self.kept.numpy(), allow_pickle=False)

    def load(self, folder: Path) -> None:
        """Go on with what a checkpoint has gathered, on rank 0; the others begin with nothing."""
        self.forget()
        if self._reducer.rank == 0 and (folder / self.FILE_NAME).is_file():
            self.kept.assign(np.load(folder / self.FILE_NAME, allow_pickle=False))

    def forget(self) -> None:
        """Forget what was kept, as a run does that begins with another one's checkpoint."""
        self.kept.assign(tf.zeros_like(self.kept))
