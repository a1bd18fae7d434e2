"""Encoders: what gives the parameters of q(w | x, y), a Gaussian for each training row."""

from __future__ import annotations

from collections.abc import Sequence

import gpflow
import numpy as np
import tensorflow as tf

from natdgp.seeds import Domain, key_of

INITIAL_SHIFT = -3.0
"""Added before the softplus that makes standard deviations, so that they start at about 0.05."""


class MLPEncoder(tf.keras.layers.Layer):
    """A multilayer perceptron from (x, y) to mean and standard deviation of w.

    Amortised inference as in Salimbeni et al. 2019: hidden layers of tanh units, then two linear
    maps, the second through a softplus.
    """

    def __init__(
        self, input_dim: int, latent_dim: int, widths: Sequence[int] = (64, 64), *, seed: int
    ) -> None:
        """:param input_dim: D + Q.
        :param latent_dim: W.
        :param widths: units of each hidden layer.
        :param seed: of the initial weights.
        """
        super().__init__(name="encoder", dtype=gpflow.default_float())
        seeds = key_of(seed, Domain.ENCODER, len(widths) + 1, np.uint32)
        self.hidden = [
            tf.keras.layers.Dense(
                width,
                activation="tanh",
                kernel_initializer=tf.keras.initializers.GlorotNormal(int(key)),
                dtype=self.dtype,
            )
            for width, key in zip(widths, seeds, strict=False)
        ]
        self.last = tf.keras.layers.Dense(
            2 * latent_dim,
            kernel_initializer=tf.keras.initializers.GlorotNormal(int(seeds[-1])),
            dtype=self.dtype,
        )
        sizes = [input_dim, *widths]
        for layer, size in zip([*self.hidden, self.last], sizes, strict=True):
            layer.build([None, size])  # a checkpoint restores into variables that are there
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Means and standard deviations of w, [n, W] each, for rows [n, D + Q]."""
        for layer in self.hidden:
            inputs = layer(inputs)
        mean, raw = tf.split(self.last(inputs), 2, axis=-1)
        return mean, tf.nn.softplus(raw + INITIAL_SHIFT) + 1e-6


class RowEncoder(tf.keras.layers.Layer):
    """Mean and standard deviation of w as parameters of each training row.

    It is asked by the rows' numbers, so that minibatches and shuffling do not mix rows up. GPflux's
    `DirectlyParameterizedNormalDiag` gives all N rows in their order, whatever batch it is called
    with: it needs batches of all rows, unshuffled; a smaller batch fails on shapes, a shuffled one
    trains each row's w on another row, in silence.
    """

    def __init__(self, num_data: int, latent_dim: int, *, seed: int) -> None:
        """:param num_data: N.
        :param latent_dim: W.
        :param seed: of the initial means, N(0, 0.01^2), which break the symmetry.
        """
        super().__init__(name="encoder", dtype=gpflow.default_float())
        (key,) = key_of(seed, Domain.ENCODER, 1, np.uint32)
        means = 0.01 * np.random.default_rng(key).normal(size=(num_data, latent_dim))
        self.means = gpflow.Parameter(means)
        self.stds = gpflow.Parameter(
            np.full_like(means, 1e-2), transform=gpflow.utilities.positive()
        )
        self.built = True

    def call(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Means and standard deviations of w, [n, W] each, for rows' numbers [n]."""
        return tf.gather(self.means, rows), tf.gather(self.stds, rows)
