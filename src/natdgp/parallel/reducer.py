"""The one place where gradients of several ranks become one (second law of the design)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf


class Reducer(Protocol):
    """Averages gradients over ranks before any optimizer sees them."""

    @property
    def rank(self) -> int:
        """This process, from 0."""

    @property
    def size(self) -> int:
        """K, the number of processes."""

    def average(self, gradients: Sequence[tf.Tensor], examples: tf.Tensor) -> list[tf.Tensor]:
        """Average per-example gradients over all ranks.

        :param gradients: this rank's gradients of its mean loss, any shapes.
        :param examples: scalar, the number of examples behind them; the weight of this rank.
        :returns: gradients of the mean loss over all ranks' examples, same order and shapes.
        """

    def total(self, sums: tf.Tensor) -> tf.Tensor:
        """Add a tensor up over all ranks."""


class OneProcess:
    """The reducer of a run in one process: everything is there already."""

    rank = 0
    size = 1

    def average(self, gradients: Sequence[tf.Tensor], examples: tf.Tensor) -> list[tf.Tensor]:
        """Return the gradients as they are."""
        return list(gradients)

    def total(self, sums: tf.Tensor) -> tf.Tensor:
        """Return the sums as they are."""
        return sums
