"""KL[q(v) || p(v)] of a whitened sparse GP layer."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from check_shapes import check_shapes


@check_shapes("q_mu: [M, P]", "q_sqrt: [P, M, M]", "return: []")
def whitened_kl(q_mu: tf.Tensor, q_sqrt: tf.Tensor) -> tf.Tensor:
    """Sum over P latent GPs of KL[N(q_mu_p, L_p L_p') || N(0, I)], in nats.

        KL = (|q_mu|^2 + sum_p |L_p|_F^2 - M P) / 2 - sum_pm log |L_p,mm|

    Its derivative by L_p is L_p - diag(1 / L_p,mm), written out to save the passes over zeros.

    :param q_mu: means.
    :param q_sqrt: the lower triangles L_p.
    """
    M, P = q_mu.shape

    @tf.custom_gradient
    def kl(
        q_mu: tf.Tensor, q_sqrt: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        diagonals = tf.linalg.diag_part(q_sqrt)
        squares = tf.reduce_sum(tf.square(q_mu)) + tf.reduce_sum(tf.square(q_sqrt))
        logs = tf.reduce_sum(tf.math.log(tf.abs(diagonals)))

        def gradients(bar: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_L = tf.linalg.set_diag(q_sqrt, diagonals - 1 / diagonals)
            return bar * q_mu, bar * by_L

        return 0.5 * (squares - M * P) - logs, gradients

    return kl(q_mu, q_sqrt)
