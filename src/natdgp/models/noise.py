"""Sampling noise as a pure function of (seed, stream, step, layer, row): the first law."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from dataclasses import dataclass

import tensorflow as tf


class Stream(enum.IntEnum):
    """What noise is drawn for; streams never share numbers."""

    TRAINING = 0
    EVALUATION = 1
    PREDICTION = 2


@dataclass(frozen=True)
class _Draw:
    stream: Stream
    step: tf.Tensor
    rows: tf.Tensor
    num_rows: int
    num_samples: int


class SamplingNoise:
    """Stateless standard draws for the rows of a global batch.

    Numbers are drawn for the whole global batch and a rank takes those of its own rows, so that
    they depend neither on the number of ranks nor on where a run was interrupted.
    """

    def __init__(self, seed: int) -> None:
        """:param seed: the trial's seed; bits beyond the 32nd count too."""
        self._seed = seed
        self._draw: _Draw | None = None

    @contextlib.contextmanager
    def at(
        self,
        *,
        stream: Stream,
        step: tf.Tensor | int,
        rows: tf.Tensor,
        num_rows: int,
        num_samples: int,
    ) -> Iterator[None]:
        """Fix what layers draw inside this context (while a graph is traced, or eagerly).

        :param stream: what the noise is for.
        :param step: scalar, the number of the global batch in its stream.
        :param rows: [n] integers in [0, num_rows): which rows of the global batch these are.
        :param num_rows: B, rows of a global batch.
        :param num_samples: S, Monte-Carlo samples of each row.
        """
        if self._draw is not None:
            raise RuntimeError("a draw of sampling noise is already under way")
        self._draw = _Draw(stream, tf.cast(step, tf.int64), rows, num_rows, num_samples)
        try:
            yield
        finally:
            self._draw = None

    @property
    def num_samples(self) -> int:
        """S of the draw under way; 1 outside of any."""
        return 1 if self._draw is None else self._draw.num_samples

    def normal(self, layer: int, like: tf.Tensor) -> tf.Tensor:
        """Standard normal numbers for one layer's outputs.

        :param layer: the layer's index; each has numbers of its own.
        :param like: [n, Q] or [S * n, Q], the tensor whose width and dtype the draw takes.
        :returns: [S, n, Q]. Outside of :meth:`at`, the numbers of rows 0 to n - 1 of batch 0 of
            the prediction stream.
        """
        width, dtype = tf.shape(like)[-1], like.dtype
        draw = self._draw
        if draw is None:
            seed = self._key(Stream.PREDICTION, tf.constant(0, tf.int64), layer)
            return tf.random.stateless_normal([1, tf.shape(like)[0], width], seed, dtype=dtype)
        seed = self._key(draw.stream, draw.step, layer)
        shape = [draw.num_samples, draw.num_rows, width]
        everyone = tf.random.stateless_normal(shape, seed, dtype=dtype)
        return tf.gather(everyone, draw.rows, axis=1)

    def gamma(self, layer: int, like: tf.Tensor, concentration: float) -> tf.Tensor:
        """Gamma(concentration, 1) numbers, [S, n, Q]; only inside :meth:`at`."""
        draw = self._draw
        if draw is None:
            raise RuntimeError("gamma numbers are drawn only inside `at`")
        seed = self._key(draw.stream, draw.step, layer)
        shape = [draw.num_samples, draw.num_rows, tf.shape(like)[-1]]
        everyone = tf.random.stateless_gamma(shape, seed, alpha=concentration, dtype=like.dtype)
        return tf.gather(everyone, draw.rows, axis=1)

    def _key(self, stream: Stream, step: tf.Tensor, layer: int) -> tf.Tensor:
        low, high = self._seed & 0xFFFFFFFF, (self._seed >> 32) & 0xFFFFFFFF
        key = tf.constant([low, high], dtype=tf.int64)
        for part in (tf.constant(int(stream), tf.int64), step, tf.constant(layer, tf.int64)):
            key = tf.random.experimental.stateless_fold_in(key, part)
        return key
