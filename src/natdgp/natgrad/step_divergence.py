"""How far a step went: KL(q_new || q_old), per latent GP."""

from __future__ import annotations

import tensorflow as tf
from check_shapes import check_shapes


@check_shapes(
    "q_mu_new: [M, P]",
    "q_sqrt_new: [P, M, M]",
    "q_mu: [M, P]",
    "q_sqrt: [P, M, M]",
    "return: [P]",
)
def step_kl(
    q_mu_new: tf.Tensor, q_sqrt_new: tf.Tensor, q_mu: tf.Tensor, q_sqrt: tf.Tensor
) -> tf.Tensor:
    """KL(N(m_new, L_new L_new') || N(m, L L')).

    With V = L^-1 L_new and d = L^-1 (m_new - m), from one triangular solve of M + 1 columns,

        KL = (||V||_F^2 - M + |d|^2) / 2 - sum_i log |V_ii|

    (for the natural step V = U'^-1, so the first and last terms are tr B^-1 and log det B).
    """
    difference = tf.transpose(q_mu_new - q_mu)[:, :, None]
    solved = tf.linalg.triangular_solve(q_sqrt, tf.concat([q_sqrt_new, difference], axis=2))
    ratios = tf.linalg.diag_part(q_sqrt_new) / tf.linalg.diag_part(q_sqrt)
    M = tf.cast(tf.shape(q_mu)[0], q_mu.dtype)
    squares = tf.reduce_sum(tf.square(solved), axis=[1, 2])
    return 0.5 * (squares - M) - tf.reduce_sum(tf.math.log(tf.abs(ratios)), axis=1)


@check_shapes(
    "q_mu_new: [M, P]",
    "q_diag_new: [M, P]",
    "q_mu: [M, P]",
    "q_diag: [M, P]",
    "return: [P]",
)
def step_kl_diag(
    q_mu_new: tf.Tensor, q_diag_new: tf.Tensor, q_mu: tf.Tensor, q_diag: tf.Tensor
) -> tf.Tensor:
    """The same for standard deviations: a sum over independent Gaussians."""
    ratios = q_diag_new / q_diag
    d = (q_mu_new - q_mu) / q_diag
    terms = 0.5 * (tf.square(ratios) - 1 + tf.square(d)) - tf.math.log(tf.abs(ratios))
    return tf.reduce_sum(terms, axis=0)
