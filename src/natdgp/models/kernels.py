"""GPflow's kernels, their squared distances arranged as one matrix product.

A kernel's matrix [M, N] is small work next to the layer's products with it, but many passes over
memory: GPflow takes six forwards and about eight backwards for a squared exponential. Here

    |x - z|^2 = [x, |x|^2, 1] [-2 z, 1, |z|^2]'

so that its gradients, too, are two products and nothing else. The rounding is that of GPflow's
|x|^2 + |z|^2 - 2 x z', which cancels likewise.
"""

from __future__ import annotations

import gpflow
import numpy as np
import tensorflow as tf

from natdgp.models.settings import KernelSettings


def squared_distances(X: tf.Tensor, Z: tf.Tensor) -> tf.Tensor:
    """|x - z|^2 for all rows of X [N, D] and Z [M, D], [N, M]; rounding may make it negative."""
    return _product(-2 * X, _squares(X), Z, _squares(Z))


def _product(X: tf.Tensor, x: tf.Tensor, Z: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """X Z' + x 1' + 1 z' for columns x and z."""
    left = tf.concat([X, x, tf.ones_like(x)], axis=1)
    right = tf.concat([Z, tf.ones_like(z), z], axis=1)
    return tf.linalg.matmul(left, right, transpose_b=True)


def _squares(X: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(X), axis=1, keepdims=True)


class SquaredExponential(gpflow.kernels.SquaredExponential):
    """variance exp(-r^2 / 2), of inputs [N, D]."""

    def K(self, X: tf.Tensor, X2: tf.Tensor | None = None) -> tf.Tensor:
        """[N, N2]; the exponential of one product, log variance in it."""
        X = self.scale(X)
        X2 = X if X2 is None else self.scale(X2)
        return tf.exp(
            _product(X, tf.math.log(self.variance) - 0.5 * _squares(X), X2, -0.5 * _squares(X2))
        )


class Matern32(gpflow.kernels.Matern32):
    """variance (1 + √3 r) exp(-√3 r), of inputs [N, D]."""

    def scaled_squared_euclid_dist(self, X: tf.Tensor, X2: tf.Tensor | None = None) -> tf.Tensor:
        """r^2, [N, N2]."""
        X = self.scale(X)
        return squared_distances(X, X if X2 is None else self.scale(X2))


class Matern52(gpflow.kernels.Matern52):
    """variance (1 + √5 r + 5/3 r^2) exp(-√5 r), of inputs [N, D]."""

    def scaled_squared_euclid_dist(self, X: tf.Tensor, X2: tf.Tensor | None = None) -> tf.Tensor:
        """r^2, [N, N2]."""
        X = self.scale(X)
        return squared_distances(X, X if X2 is None else self.scale(X2))


_KERNELS = {
    "squared_exponential": SquaredExponential,
    "matern32": Matern32,
    "matern52": Matern52,
}


def build_kernel(settings: KernelSettings, in_dim: int) -> gpflow.kernels.Kernel:
    """The kernel of a layer with `in_dim` inputs, in GPflow's default float type."""
    lengthscale = settings.lengthscale or float(np.sqrt(in_dim))
    return _KERNELS[settings.name](
        variance=settings.variance,
        lengthscales=np.full(in_dim, lengthscale) if settings.ard else lengthscale,
    )
