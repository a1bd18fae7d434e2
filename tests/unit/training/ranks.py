"""Several ranks in one process: threads of which one runs at a time, in lockstep at collectives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import tensorflow as tf

from natdgp.distributed.reducer import Reducer

Result = TypeVar("Result")

_PATIENCE = 60.0
"""Seconds after which a rank that waits alone in a collective fails."""


class _Ranks:
    def __init__(self, size: int) -> None:
        self.size = size
        self.turn = threading.Lock()
        self.barrier = threading.Barrier(size)
        self.boxes: list[list[tf.Tensor]] = [[] for _ in range(size)]


class _Rank:
    """A reducer over threads; eager operations only."""

    def __init__(self, ranks: _Ranks, rank: int) -> None:
        self._ranks = ranks
        self.rank = rank
        self.size = ranks.size

    def total(self, tensor: tf.Tensor) -> tf.Tensor:
        return tf.add_n([tensors[0] for tensors in self._exchange([tensor])])

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        values = self._exchange([tf.identity(variable) for variable in variables])[0]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def gather(self, tensor: tf.Tensor) -> tf.Tensor:
        return tf.stack([tensors[0] for tensors in self._exchange([tensor])])

    def scatter(self, tensor: tf.Tensor) -> tf.Tensor:
        return self.total(tensor)[self.rank]

    def announce(self, arrival: Callable[[], None]) -> None:
        """Nobody asks."""

    def _exchange(self, tensors: Sequence[tf.Tensor]) -> list[list[tf.Tensor]]:
        """What every rank has brought, by rank."""
        ranks = self._ranks
        ranks.boxes[self.rank] = [tf.identity(tensor) for tensor in tensors]
        ranks.turn.release()
        try:
            ranks.barrier.wait(_PATIENCE)
            everyone = list(ranks.boxes)
            ranks.barrier.wait(_PATIENCE)  # nobody fills the boxes before all have read them
        finally:
            ranks.turn.acquire()
        return everyone


def together(size: int, work: Callable[[Reducer], Result]) -> list[Result]:
    """What `work` returns on each of several ranks, which meet in their reducers' collectives.

    :raises Exception: the first that a rank raised, unless it only waited for one that had.
    """
    ranks = _Ranks(size)

    def run(rank: int) -> Result:
        with ranks.turn:
            try:
                return work(_Rank(ranks, rank))
            except BaseException:
                ranks.barrier.abort()
                raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    if errors:
        raise errors[0]
    return [future.result() for future in futures]
