"""The one place where gradients of several ranks become one (second law of the design)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf


class Reducer(Protocol):
    """Several processes that add up and agree."""

    @property
    def rank(self) -> int:
        """This process, from 0."""

    @property
    def size(self) -> int:
        """K, the number of processes."""

    def total(self, tensor: tf.Tensor) -> tf.Tensor:
        """Add a tensor up over all ranks; every rank receives the same bits."""

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Give every rank the values of rank 0."""

    def gather(self, tensor: tf.Tensor) -> tf.Tensor:
        """The tensors of all ranks, stacked by rank: [K, ...]. All of one shape."""

    def scatter(self, tensor: tf.Tensor) -> tf.Tensor:
        """Of [K, ...], added up over all ranks, the row that is this rank's."""

    def announce(self, arrival: Callable[[], None]) -> None:
        """Have a function called whenever this rank has its part and begins to wait for others'.

        To be called before graphs with collectives are traced.
        """


class OneProcess:
    """The reducer of a run in one process: everything is there already."""

    rank = 0
    size = 1

    def total(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the tensor as it is."""
        return tensor

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Nothing to do."""

    def gather(self, tensor: tf.Tensor) -> tf.Tensor:
        """The tensor alone: [1, ...]."""
        return tensor[None]

    def scatter(self, tensor: tf.Tensor) -> tf.Tensor:
        """The only row."""
        return tensor[0]

    def announce(self, arrival: Callable[[], None]) -> None:
        """Nothing to do: it never waits."""


def gather_on_first_rank(variable: tf.Variable, reducer: Reducer) -> None:
    """Bring what all ranks have added up in a variable to rank 0; the others keep zeros."""
    total = reducer.total(variable)
    variable.assign(total if reducer.rank == 0 else tf.zeros_like(total))


_LONGEST = 1000
"""Bytes of a text that ranks tell each other."""


def first_text(reducer: Reducer, own: str) -> str:
    """Of the texts that ranks have, the first that is not empty; the same on all ranks."""
    packed = np.zeros(_LONGEST, np.int64)
    encoded = own.encode()[:_LONGEST]
    packed[: len(encoded)] = list(encoded)
    for text in reducer.gather(tf.constant(packed)).numpy():
        if text.any():
            return bytes(text[text > 0].astype(np.uint8)).decode(errors="replace")
    return ""
