"""KL[q(v) || p(v)] of a whitened sparse GP layer, on parameters as they are stored."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from check_shapes import check_shapes

from natdgp.natgrad.parameters import packed_diagonal


@check_shapes("q_mu: [M, P]", "packed: [P, T]", "return: []")
def whitened_kl(q_mu: tf.Tensor, packed: tf.Tensor) -> tf.Tensor:
    """Sum over P latent GPs of KL[N(q_mu_p, L_p L_p') || N(0, I)], in nats.

        KL = (|q_mu|^2 + sum_p |L_p|_F^2 - M P) / 2 - sum_pm log |L_p,mm|

    |L|_F^2 is the sum of squares of the packed triangle, so that the matrices are never unpacked.

    :param q_mu: means.
    :param packed: the lower triangles L_p, packed by TFP's `FillTriangular`; T = M (M + 1) / 2.
    """
    M, P = q_mu.shape
    positions = packed_diagonal(M)

    @tf.custom_gradient
    def kl(
        q_mu: tf.Tensor, packed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        diagonals = tf.gather(packed, positions, axis=1)
        squares = tf.reduce_sum(tf.square(q_mu)) + tf.reduce_sum(tf.square(packed))
        logs = tf.reduce_sum(tf.math.log(tf.abs(diagonals)))

        def gradients(bar: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            mask = np.zeros(packed.shape[1])
            mask[positions] = 1
            inverses = tf.math.divide_no_nan(tf.constant(mask[None], packed.dtype), packed)
            return bar * q_mu, bar * (packed - inverses)

        return 0.5 * (squares - M * P) - logs, gradients

    return kl(q_mu, packed)
