"""Natural-gradient steps in closed form, on tensors.

q(u) = N(m, S), S = L L', for each of P latent GPs: means q_mu [M, P], square roots q_sqrt
[P, M, M] (L, lower triangular) or [M, P] (standard deviations, a diagonal S). The gradients of the
loss are taken with respect to those same arrays. gamma, the step length, is a scalar or [P].

A natural-gradient step moves the natural parameters of q against the gradient with respect to its
expectation parameters (Amari 1998; Hensman et al. 2013; Salimbeni, Eleftheriadis and Hensman 2018,
equation 10). With G = dLoss/dS and g = dLoss/dm,

    S_new^-1 = S^-1 + 2 gamma G,    m_new = m - gamma S_new g                               (1)

(the second because the gradient with respect to E[u] at fixed E[u u'] is g - 2 G m). Put
L' ... L around the first: L' S_new^-1 L = I + C with C = 2 gamma L' G L, hence, if I + C = U U',

    S_new = L (U U')^-1 L' = L_new L_new',    L_new = L U'^-1                                (2)

and L_new is lower triangular again when U is upper triangular. Nothing is ever inverted that the
step did not make itself: S^-1 and L^-1 do not appear. C comes from dLoss/dL as

    C = gamma (T + T' - diag T),    T = tril(L' dLoss/dL)                                    (3)

because dLoss/dL = tril(2 G L), so L' dLoss/dL and 2 L' G L share their lower triangle. The upper
triangles of L and of dLoss/dL are taken to be zero, as GPflow's parameters make them.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
from check_shapes import check_shapes

from natdgp.natgrad.factor import times_inverse_factor, upper_product
from natdgp.natgrad.spectrum import lowest_eigenvalue

_FULL = (
    "q_mu: [M, P]",
    "q_sqrt: [P, M, M]",
    "q_mu_grad: [M, P]",
    "q_sqrt_grad: [P, M, M]",
    "gamma: [broadcast P]",
    "return.q_mu: [M, P]",
    "return.q_sqrt: [P, M, M]",
    "return.valid: [P]",
    "return.share: [P]",
)
_DIAGONAL = (
    "q_mu: [M, P]",
    "q_diag: [M, P]",
    "q_mu_grad: [M, P]",
    "q_diag_grad: [M, P]",
    "gamma: [broadcast P]",
    "return.q_mu: [M, P]",
    "return.q_sqrt: [M, P]",
    "return.valid: [P]",
    "return.share: [P]",
)


_MOST_ATTEMPTS = 40
"""Of shortening a step: the last leaves 2^-820 of gamma."""


class Step(NamedTuple):
    """Where a step led. A latent GP whose step is not valid is where it was."""

    q_mu: tf.Tensor
    """[M, P]"""
    q_sqrt: tf.Tensor
    """[P, M, M], or [M, P] for a diagonal q."""
    valid: tf.Tensor
    """[P], whether the step led to a Gaussian: S_new positive definite, and every number finite."""
    share: tf.Tensor
    """[P], the share of gamma that was taken: 1, or less where a guaranteed step was shortened."""


@check_shapes(*_FULL)
def natural_step(
    q_mu: tf.Tensor,
    q_sqrt: tf.Tensor,
    q_mu_grad: tf.Tensor,
    q_sqrt_grad: tf.Tensor,
    gamma: tf.Tensor,
) -> Step:
    """The exact step, equations (1) to (3): GPflow's with XiNat.

    With gamma = 1 it reaches the optimum of a conjugate model. It is valid for a latent GP exactly
    when I + C is positive definite, which it is not when the step is too long for an indefinite C;
    :mod:`natdgp.natgrad.factor` says how that is decided.
    """
    gamma = per_latent(gamma, q_mu)
    C = _upper_C(q_sqrt, q_sqrt_grad, gamma)
    return _natural(q_mu, q_sqrt, q_mu_grad, gamma, C)


@check_shapes(*_FULL)
def guaranteed_natural_step(
    q_mu: tf.Tensor,
    q_sqrt: tf.Tensor,
    q_mu_grad: tf.Tensor,
    q_sqrt_grad: tf.Tensor,
    gamma: tf.Tensor,
) -> Step:
    """The exact step, as long as no variance grows to more than twice its size.

    Along an eigenvector of C, of eigenvalue x, S_new is S / (1 + x). Where the smallest x, as
    :func:`natdgp.natgrad.spectrum.lowest_eigenvalue` estimates it, is below -1/2, gamma is
    multiplied by (1/2) / |x| for that latent GP. The step keeps the direction of the exact one:
    S_new grows where the gradient asks for growth and shrinks where it asks for that, and the mean
    moves as in (1). It is the exact step while gamma <= 1/2 wherever S_new^-1 would be positive
    definite at gamma = 1, as with a log-concave likelihood and one layer.

    Where the estimate was too high and I + C is not positive definite all the same, gamma is
    multiplied by 1/2, 1/4, 1/8, ... until it is. Not valid only where C or the mean's step cannot
    be represented.
    """
    gamma = per_latent(gamma, q_mu)
    C = tf.linalg.band_part(_upper_C(q_sqrt, q_sqrt_grad, gamma), 0, -1)

    def shortened(share: tf.Tensor) -> Step:
        step = _natural(q_mu, q_sqrt, q_mu_grad, gamma * share, C * share[:, None, None])
        return step._replace(share=share)

    def again(number: tf.Tensor, step: Step) -> tuple[tf.Tensor, Step]:
        less = step.share * tf.pow(tf.constant(0.5, step.share.dtype), number)
        return number + 1, shortened(tf.where(step.valid, step.share, less))

    # Nothing is gained by shorter steps where there are no numbers.
    finite = tf.math.is_finite(tf.reduce_sum(C, axis=[1, 2]) + tf.reduce_sum(q_mu_grad, axis=0))
    step: Step
    _, step = tf.while_loop(
        lambda number, step: tf.reduce_any(finite & ~step.valid),
        again,
        (tf.ones([], q_mu.dtype), shortened(_share_of(lowest_eigenvalue(C)))),
        maximum_iterations=_MOST_ATTEMPTS,
    )
    return step


@check_shapes(*_FULL)
def mean_sqrt_step(
    q_mu: tf.Tensor,
    q_sqrt: tf.Tensor,
    q_mu_grad: tf.Tensor,
    q_sqrt_grad: tf.Tensor,
    gamma: tf.Tensor,
) -> Step:
    """The step in (m, L) themselves: GPflow's with XiSqrtMeanVar.

    The derivative of (2) with respect to gamma at 0, followed for the length gamma (Salimbeni et
    al. 2018, section 3, where it costs a forward-mode derivative). To first order U U' = I + C
    gives U'^-1 = I - Phi(C), Phi being the lower triangle with its diagonal halved, hence

        L_new = L (I - Phi(C)),    m_new = m - gamma L L' g

    L_new L_new' is positive definite unless a diagonal element of I - Phi(C) is exactly 0. The
    diagonal of L_new may change its sign, as GPflow's may.
    """
    gamma = per_latent(gamma, q_mu)
    upper = tf.linalg.band_part(_upper_C(q_sqrt, q_sqrt_grad, gamma), 0, -1)
    upper = tf.linalg.set_diag(upper, 0.5 * tf.linalg.diag_part(upper))
    L_new = q_sqrt - tf.matmul(q_sqrt, upper, transpose_b=True)
    m_new = _mean(q_mu, q_sqrt, q_mu_grad, gamma)
    valid = tf.math.is_finite(tf.reduce_sum(L_new, axis=[1, 2]))
    return _where_valid(m_new, L_new, valid, q_mu, q_sqrt)


@check_shapes(*_DIAGONAL)
def natural_step_diag(
    q_mu: tf.Tensor,
    q_diag: tf.Tensor,
    q_mu_grad: tf.Tensor,
    q_diag_grad: tf.Tensor,
    gamma: tf.Tensor,
) -> Step:
    """The exact step among independent Gaussians: (1) to (3) with every matrix diagonal.

    Their natural parameters are the diagonals of the full ones, so with s the standard deviations
    s_new = s / sqrt(1 + c), c = gamma s dLoss/ds, and the mean moves as in (1).
    """
    gamma = per_latent(gamma, q_mu)
    return _natural_diag(q_mu, q_diag, q_mu_grad, gamma, 1 + gamma * q_diag * q_diag_grad)


@check_shapes(*_DIAGONAL)
def guaranteed_natural_step_diag(
    q_mu: tf.Tensor,
    q_diag: tf.Tensor,
    q_mu_grad: tf.Tensor,
    q_diag_grad: tf.Tensor,
    gamma: tf.Tensor,
) -> Step:
    """As :func:`guaranteed_natural_step`; the eigenvalues are the c themselves."""
    gamma = per_latent(gamma, q_mu)
    c = gamma * q_diag * q_diag_grad
    share = _share_of(tf.reduce_min(c, axis=0))
    step = _natural_diag(q_mu, q_diag, q_mu_grad, gamma * share, 1 + share * c)
    return step._replace(share=share)


@check_shapes(*_DIAGONAL)
def mean_sqrt_step_diag(
    q_mu: tf.Tensor,
    q_diag: tf.Tensor,
    q_mu_grad: tf.Tensor,
    q_diag_grad: tf.Tensor,
    gamma: tf.Tensor,
) -> Step:
    """As :func:`mean_sqrt_step`: s_new = s (1 - c / 2), m_new = m - gamma s s g.

    Standard deviations are positive, so the step is valid where c < 2.
    """
    gamma = per_latent(gamma, q_mu)
    c = gamma * q_diag * q_diag_grad
    m_new = q_mu - gamma * tf.square(q_diag) * q_mu_grad
    valid = tf.reduce_all(c < 2, axis=0)  # false for NaN
    return _where_valid(m_new, q_diag * (1 - 0.5 * c), valid, q_mu, q_diag)


def per_latent(gamma: tf.Tensor, q_mu: tf.Tensor) -> tf.Tensor:
    """gamma, [P], in the parameters' type."""
    # The hint keeps a Python number from passing through float32.
    gamma = tf.cast(tf.convert_to_tensor(gamma, dtype_hint=q_mu.dtype), q_mu.dtype)
    return tf.broadcast_to(gamma, tf.shape(q_mu)[1:])


def _share_of(lowest: tf.Tensor) -> tf.Tensor:
    """The share of gamma with which the smallest eigenvalue of C is not below -1/2."""
    return tf.where(lowest < -0.5, -0.5 / lowest, tf.ones_like(lowest))


def _upper_C(L: tf.Tensor, L_grad: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    """The upper triangle of C, equation (3); what stands below the diagonal means nothing."""
    return upper_product(L_grad * gamma[:, None, None], L)


def _mean(q_mu: tf.Tensor, L: tf.Tensor, q_mu_grad: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    """m - gamma L L' g."""
    g = tf.transpose(q_mu_grad)  # [P, M]
    moved = tf.linalg.matvec(L, tf.linalg.matvec(L, g, transpose_a=True))
    return q_mu - gamma * tf.transpose(moved)


def _natural(
    q_mu: tf.Tensor, L: tf.Tensor, q_mu_grad: tf.Tensor, gamma: tf.Tensor, C: tf.Tensor
) -> Step:
    """Equations (1) and (2); of C the upper triangle is read."""
    L_new = times_inverse_factor(C, L)
    m_new = _mean(q_mu, L_new, q_mu_grad, gamma)
    # A number in L_new that is not finite makes every number in m_new NaN, even where it meets a
    # zero; so does an I + C that is not positive definite.
    return _where_valid(m_new, L_new, tf.ones_like(gamma, tf.bool), q_mu, L)


def _natural_diag(
    q_mu: tf.Tensor, s: tf.Tensor, q_mu_grad: tf.Tensor, gamma: tf.Tensor, b: tf.Tensor
) -> Step:
    definite = tf.reduce_all((b > 0) & tf.math.is_finite(b), axis=0)
    s_new = s * tf.math.rsqrt(b)
    m_new = q_mu - gamma * tf.square(s_new) * q_mu_grad
    return _where_valid(m_new, s_new, definite, q_mu, s)


def _where_valid(
    m_new: tf.Tensor, L_new: tf.Tensor, definite: tf.Tensor, q_mu: tf.Tensor, q_sqrt: tf.Tensor
) -> Step:
    """The step, but the old parameters where it is not valid or its mean not finite."""
    valid = definite & tf.reduce_all(tf.math.is_finite(m_new), axis=0)

    def chosen() -> tuple[tf.Tensor, tf.Tensor]:
        where = valid if q_sqrt.shape.rank == 2 else valid[:, None, None]
        return tf.where(valid, m_new, q_mu), tf.where(where, L_new, q_sqrt)

    q_mu, q_sqrt = tf.cond(tf.reduce_all(valid), lambda: (m_new, L_new), chosen)
    return Step(q_mu, q_sqrt, valid, tf.ones_like(q_mu[0]))
