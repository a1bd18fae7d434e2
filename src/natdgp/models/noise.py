"""Sampling noise as a pure function of (seed, stream, layer, position): the first law."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.stats
import tensorflow as tf

from natdgp.seeds import Domain, key_of


class Stream(enum.IntEnum):
    """What noise is drawn for; streams never share numbers."""

    TRAINING = 0
    EVALUATION = 1
    PREDICTION = 2


_PER_BLOCK = {tf.float64: 2, tf.float32: 4}
"""Normal numbers that TensorFlow makes of one block of the counter-based generator."""


_BITS = 30
"""Of a point of a Sobol sequence."""


class SamplingNoise:
    """Endless sequences of standard normal numbers, one for each stream and layer.

    A sequence has S x Q numbers for each position, and a draw reads the piece that belongs to its
    rows. The generator is counter-based (Philox, Salmon et al. 2011), so that a piece is made
    without what lies before it: a rank draws the numbers of its own rows and no others, they are
    those that one process would draw for them, and neither the number of ranks nor the size of a
    batch nor an interruption changes them.
    """

    def __init__(self, seed: int) -> None:
        """:param seed: the trial's seed, any non-negative integer; all of its bits count."""
        self._key = key_of(seed, Domain.SAMPLING_NOISE, 1, np.uint64)

    def at(self, stream: Stream, positions: tf.Tensor, num_samples: int) -> Draws:
        """The numbers of rows, each its own.

        :param stream: what they are for.
        :param positions: [n], consecutive: the rows' places in the endless stream of examples.
        :param num_samples: S, Monte-Carlo samples of each row.
        """
        first = tf.reduce_sum(positions[:1])  # 0 for a batch without rows
        return RowDraws(self, stream, tf.cast(first, tf.int64), tf.size(positions), num_samples)

    def shared(self, stream: Stream, num_samples: int) -> Draws:
        """Numbers that all rows share: what is computed of them is a function of the row.

        :param stream: what they are for.
        :param num_samples: S, Monte-Carlo samples of each row.
        """
        return SharedDraws(int(self._key[0]), stream, num_samples)

    def piece(
        self, stream: Stream, layer: int, start: tf.Tensor, count: tf.Tensor, dtype: tf.DType
    ) -> tf.Tensor:
        """[count] numbers of a sequence, from number `start` on."""
        per_block = _PER_BLOCK[dtype]
        # The counter has 128 bits: the upper half is the sequence, the lower half counts blocks.
        sequence = tf.constant((int(stream) << 32) | layer, tf.uint64)
        numbers = tf.raw_ops.StatelessRandomNormalV2(
            shape=[count + per_block],
            key=tf.constant(self._key),
            counter=tf.stack([tf.cast(start // per_block, tf.uint64), sequence]),
            alg=tf.random.Algorithm.PHILOX.value,
            dtype=dtype,
        )
        skipped = tf.cast(start % per_block, tf.int32)
        return numbers[skipped : skipped + count]


class Draws(Protocol):
    """Which numbers one pass through the layers reads."""

    def normal(self, layer: int, width: int, dtype: tf.DType) -> tf.Tensor:
        """Standard normal numbers for one layer's outputs.

        :param layer: the layer's index; each has numbers of its own.
        :param width: Q, the layer's outputs.
        :param dtype: of the numbers.
        :returns: [S, n, Q], or [S, 1, Q] where all rows share them.
        """


@dataclass(frozen=True)
class RowDraws:
    """Numbers of rows, each its own."""

    noise: SamplingNoise
    stream: Stream
    first: tf.Tensor
    """Scalar, the position of the first row."""
    num_rows: tf.Tensor
    """n."""
    num_samples: int
    """S."""

    def normal(self, layer: int, width: int, dtype: tf.DType) -> tf.Tensor:
        """[S, n, Q]; see :class:`Draws`."""
        per_position = self.num_samples * width
        numbers = self.noise.piece(
            self.stream, layer, self.first * per_position, self.num_rows * per_position, dtype
        )
        by_row = tf.reshape(numbers, [self.num_rows, self.num_samples, width])
        return tf.transpose(by_row, [1, 0, 2])


@dataclass(frozen=True)
class SharedDraws:
    """Numbers that all rows share.

    An error of theirs is the same for every row, and no mean over rows makes it smaller. So they
    are spread evenly: points of a Sobol sequence, scrambled (Owen 1995; Matousek 1998) and put
    through the normal quantile function. Each layer has a scrambling and an order of its own, so
    that layers are independent.
    """

    key: int
    stream: Stream
    num_samples: int
    """S."""

    def normal(self, layer: int, width: int, dtype: tf.DType) -> tf.Tensor:
        """[S, 1, Q]; see :class:`Draws`."""
        generator = np.random.default_rng([self.key, int(self.stream), layer])
        sequence = scipy.stats.qmc.Sobol(width, scramble=True, seed=generator, bits=_BITS)
        points = sequence.random_base2((self.num_samples - 1).bit_length())[: self.num_samples]
        # In the middle of their cells: 0 has no quantile.
        numbers = scipy.stats.norm.ppf(generator.permutation(points) + 0.5 ** (_BITS + 1))
        return tf.constant(numbers[:, None], dtype)
