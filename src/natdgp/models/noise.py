"""Sampling noise as a pure function of (seed, stream, layer, position): the first law."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf


class Stream(enum.IntEnum):
    """What noise is drawn for; streams never share numbers."""

    TRAINING = 0
    EVALUATION = 1
    PREDICTION = 2


@dataclass(frozen=True)
class _Draw:
    stream: Stream
    first: tf.Tensor
    num_rows: tf.Tensor
    num_samples: int


_PER_BLOCK = {tf.float64: 2, tf.float32: 4}
"""Normal numbers that TensorFlow makes of one block of the counter-based generator."""

_BLOCKS_PER_GAMMA = 256
"""Blocks that TensorFlow reserves for each gamma number, which it draws by rejection."""


class SamplingNoise:
    """Stateless standard draws for rows at consecutive positions.

    For each stream and layer there is one endless sequence of numbers, S x Q for each position, and
    a draw reads the piece that belongs to its rows. The generator is counter-based (Philox, Salmon
    et al. 2011), so that a piece is made without what lies before it: a rank draws the numbers of
    its own rows and no others, they are those that one process would draw for them, and neither
    the number of ranks nor the size of a batch nor an interruption changes them.
    """

    def __init__(self, seed: int) -> None:
        """:param seed: the trial's seed, any non-negative integer; all of its bits count."""
        self._key = np.random.SeedSequence(seed).generate_state(1, np.uint64)
        self._draw: _Draw | None = None

    @contextlib.contextmanager
    def at(
        self,
        *,
        stream: Stream,
        first: tf.Tensor | int,
        num_rows: tf.Tensor | int,
        num_samples: int,
    ) -> Iterator[None]:
        """Fix what layers draw inside this context (while a graph is traced, or eagerly).

        :param stream: what the noise is for.
        :param first: scalar, the position of the first row.
        :param num_rows: n; the others are at the positions that follow.
        :param num_samples: S, Monte-Carlo samples of each row.
        """
        if self._draw is not None:
            raise RuntimeError("a draw of sampling noise is already under way")
        self._draw = _Draw(stream, tf.cast(first, tf.int64), num_rows, num_samples)
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
        :returns: [S, n, Q]. Outside of :meth:`at`, the numbers of positions 0 to n - 1 of the
            prediction stream.
        """
        draw = self._draw
        if draw is None:
            draw = _Draw(Stream.PREDICTION, tf.constant(0, tf.int64), tf.shape(like)[0], 1)
        start, count = _piece(draw, like)
        per_block = _PER_BLOCK[like.dtype]
        numbers = tf.raw_ops.StatelessRandomNormalV2(
            shape=[count + per_block],
            **self._generator(draw, layer, start // per_block),
            dtype=like.dtype,
        )
        skipped = tf.cast(start % per_block, tf.int32)
        return _by_sample(numbers[skipped : skipped + count], draw, like)

    def gamma(self, layer: int, like: tf.Tensor, concentration: float) -> tf.Tensor:
        """Gamma(concentration, 1) numbers, [S, n, Q]; only inside :meth:`at`."""
        draw = self._draw
        if draw is None:
            raise RuntimeError("gamma numbers are drawn only inside `at`")
        start, count = _piece(draw, like)
        numbers = tf.raw_ops.StatelessRandomGammaV3(
            shape=[count],
            **self._generator(draw, layer, start * _BLOCKS_PER_GAMMA),
            alpha=tf.constant(concentration, like.dtype),
        )
        return _by_sample(numbers, draw, like)

    def _generator(self, draw: _Draw, layer: int, block: tf.Tensor) -> dict[str, tf.Tensor]:
        """The arguments that place TensorFlow's generator at a block of a sequence.

        The counter has 128 bits: the upper half is the sequence, the lower half counts its blocks.
        """
        sequence = tf.constant((int(draw.stream) << 32) | layer, tf.uint64)
        return {
            "key": tf.constant(self._key),
            "counter": tf.stack([tf.cast(block, tf.uint64), sequence]),
            "alg": tf.random.Algorithm.PHILOX.value,
        }


def _piece(draw: _Draw, like: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where a draw's numbers start in their sequence, and how many they are."""
    per_position = draw.num_samples * tf.shape(like)[-1]
    return draw.first * tf.cast(per_position, tf.int64), draw.num_rows * per_position


def _by_sample(numbers: tf.Tensor, draw: _Draw, like: tf.Tensor) -> tf.Tensor:
    """[n S Q] to [S, n, Q]."""
    by_row = tf.reshape(numbers, [draw.num_rows, draw.num_samples, tf.shape(like)[-1]])
    return tf.transpose(by_row, [1, 0, 2])
