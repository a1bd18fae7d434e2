"""GPflow's kernels, their squared distances arranged as one matrix product.

A kernel's matrix [M, N] is small work next to the layer's products with it, but many passes over
memory: GPflow takes six forwards and about eight backwards for a squared exponential. Here

    |x - z|^2 = [x, |x|^2, 1] [-2 z, 1, |z|^2]'

so that its gradients, too, are two products and nothing else. The rounding is that of GPflow's
|x|^2 + |z|^2 - 2 x z', which cancels likewise.
"""

from __future__ import annotations

from collections.abc import Callable

import gpflow
import numpy as np
import tensorflow as tf

from natdgp.models.model_settings import KernelSettings


def squared_distances(X: tf.Tensor, Z: tf.Tensor | None = None) -> tf.Tensor:
    """|x - z|^2 for all rows of X [N, D] and Z [M, D], by default X, [N, M].

    Rounding may make it negative.
    """
    return _quadratic(1.0, tf.zeros([], X.dtype), X, Z)


def _quadratic(a: float, c: tf.Tensor, X: tf.Tensor, Z: tf.Tensor | None) -> tf.Tensor:
    """c + a |x - z|^2, [N, M]; Z is X if None.

    The derivative is written out so that each argument has one: TensorFlow adds the parts of a
    gradient in an order of its own where they are more than two. With D the gradient of the result,

        x_n_bar = 2 a sum_m D_nm (x_n - z_m),    z_m_bar likewise,    c_bar = sum_nm D_nm

    :param a: a number.
    :param c: scalar.
    """

    def product(c: tf.Tensor, X: tf.Tensor, Z: tf.Tensor) -> tf.Tensor:
        left = tf.concat([-2 * a * X, a * _squares(X) + c, tf.ones_like(X[:, :1])], axis=1)
        right = tf.concat([Z, tf.ones_like(Z[:, :1]), a * _squares(Z)], axis=1)
        return tf.linalg.matmul(left, right, transpose_b=True)

    def pulled(
        D: tf.Tensor, X: tf.Tensor, Z: tf.Tensor, transpose: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """x_n_bar, [N, D], and the sums of D's rows, [N, 1]."""
        Z_and_ones = tf.concat([Z, tf.ones_like(Z[:, :1])], axis=1)
        sums = tf.linalg.matmul(D, Z_and_ones, transpose_a=transpose)
        return 2 * a * (sums[:, -1:] * X - sums[:, :-1]), sums[:, -1:]

    @tf.custom_gradient
    def of_two(
        c: tf.Tensor, X: tf.Tensor, Z: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]]:
        def gradients(D: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            X_bar, sums = pulled(D, X, Z)
            return tf.reduce_sum(sums), X_bar, pulled(D, Z, X, transpose=True)[0]

        return product(c, X, Z), gradients

    @tf.custom_gradient
    def of_one(
        c: tf.Tensor, X: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        def gradients(D: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            X_bar, sums = pulled(D + tf.transpose(D), X, X)
            return 0.5 * tf.reduce_sum(sums), X_bar

        return product(c, X, X), gradients

    return of_one(c, X) if Z is None else of_two(c, X, Z)


def _squares(X: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(X), axis=1, keepdims=True)


class SquaredExponential(gpflow.kernels.SquaredExponential):
    """variance exp(-r^2 / 2), of inputs [N, D]."""

    def K(self, X: tf.Tensor, X2: tf.Tensor | None = None) -> tf.Tensor:
        """[N, N2]; the exponential of one product, log variance in it."""
        return tf.exp(_quadratic(-0.5, tf.math.log(self.variance), self.scale(X), self.scale(X2)))


class Matern32(gpflow.kernels.Matern32):
    """variance (1 + √3 r) exp(-√3 r), of inputs [N, D]."""

    def scaled_squared_euclid_dist(self, X: tf.Tensor, X2: tf.Tensor | None = None) -> tf.Tensor:
        """r^2, [N, N2]."""
        return squared_distances(self.scale(X), self.scale(X2))


class Matern52(gpflow.kernels.Matern52):
    """variance (1 + √5 r + 5/3 r^2) exp(-√5 r), of inputs [N, D]."""

    def scaled_squared_euclid_dist(self, X: tf.Tensor, X2: tf.Tensor | None = None) -> tf.Tensor:
        """r^2, [N, N2]."""
        return squared_distances(self.scale(X), self.scale(X2))


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
