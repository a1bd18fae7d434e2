"""The marginals q(f) of a sparse GP layer, arranged for few large products in both directions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import gpflow
import numpy as np
import tensorflow as tf
from check_shapes import check_shapes
from gpflow.conditionals import conditional
from gpflow.inducing_variables import (
    InducingPoints,
    MultioutputInducingVariables,
    SharedIndependentInducingVariables,
)
from gpflow.kernels import MultioutputKernel, SharedIndependent

BLOCK = 32
"""Columns of the square roots that are multiplied at once, where there are several latent GPs: of
25 to 256 the fastest for M = 256 and as fast as any for M = 100, forwards and backwards."""

BLOCK_ALONE = 128
"""The same for one latent GP, whose products are narrower: of 50 to 256 the fastest."""

Adjoints = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


@check_shapes(
    "X: [N, D]",
    "q_mu: [M, P]",
    "q_sqrt: [P, M, M]",
    "return[0]: [N, Q]",
    "return[1]: [N, Q]",
)
def marginals(
    X: tf.Tensor,
    inducing: MultioutputInducingVariables,
    kernel: MultioutputKernel,
    q_mu: tf.Tensor,
    q_sqrt: tf.Tensor,
    *,
    whiten: bool,
    jitter: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of f(X) under q: by :func:`whitened_marginals` where it applies.

    GPflow's conditional, under whatever defaults of GPflow are set, serves everything else:
    separate kernels or inducing variables, kernels that mix latent GPs (Q outputs of P), other
    kinds of inducing variables, and q(u) that is not whitened.

    The variance is a difference that rounding can make negative where inducing points crowd. It
    is no less than one unit of rounding of the prior variance it is subtracted from: no computed
    number below that says more, and in float64 no jitter in use leaves a variance so small.

    :param X: inputs.
    :param inducing: inducing inputs.
    :param kernel: of the P latent GPs, and how they make Q outputs.
    :param q_mu: means of the inducing outputs.
    :param q_sqrt: lower-triangular square roots of their covariances.
    :param whiten: whether q is of v in u = chol(Kuu) v.
    :param jitter: added to the diagonal of Kuu.
    """
    if whiten and _is_shared(inducing, kernel):
        mean, var = whitened_marginals(X, inducing, kernel, q_mu, q_sqrt, jitter=jitter)
    else:
        mean, var = conditional(X, inducing, kernel, q_mu, q_sqrt=q_sqrt, white=whiten)
    prior = tf.stop_gradient(kernel(X, full_cov=False, full_output_cov=False))
    return mean, _at_least(var, np.finfo(prior.dtype.as_numpy_dtype).eps * prior)


def _is_shared(inducing: MultioutputInducingVariables, kernel: MultioutputKernel) -> bool:
    """Whether all latent GPs are outputs and share one kernel and one set of inducing points.

    Subclasses may mean something else, and are left to GPflow's dispatch.
    """
    return (
        type(kernel) is SharedIndependent
        and type(inducing) is SharedIndependentInducingVariables
        and type(inducing.inducing_variable) is InducingPoints
    )


@tf.custom_gradient
def _at_least(
    x: tf.Tensor, floor: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, None]]]:
    """max(x, floor), with the derivative of x: what stands at the floor can leave it."""
    return tf.maximum(x, floor), lambda bar: (bar, None)


@check_shapes(
    "X: [N, D]",
    "q_mu: [M, P]",
    "q_sqrt: [P, M, M]",
    "return[0]: [N, P]",
    "return[1]: [N, P]",
)
def whitened_marginals(
    X: tf.Tensor,
    inducing: SharedIndependentInducingVariables,
    kernel: SharedIndependent,
    q_mu: tf.Tensor,
    q_sqrt: tf.Tensor,
    *,
    jitter: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of f(X) under q, for P latent GPs that share kernel and inducing inputs.

    With Kuu = L L', A = L^-1 Kuf and q(v) = N(q_mu, q_sqrt q_sqrt') for u = L v (Hensman, Matthews
    & Ghahramani 2015, section 3; whitened as in Salimbeni & Deisenroth 2017):

        mean_p = A' q_mu_p
        var_p  = diag Kff - sum_m A_m^2 + sum_m (q_sqrt_p' A)_m^2

    :param X: inputs.
    :param inducing: inducing inputs, [M, D].
    :param kernel: one kernel for all latent GPs.
    :param q_mu: means of the whitened inducing outputs.
    :param q_sqrt: lower-triangular square roots of their covariances, as
        :func:`~natdgp.natgrad.parameters.lower_triangle` gives them: of the gradient that they
        receive only the lower triangle is right.
    :param jitter: added to the diagonal of Kuu.
    """
    shared, points = kernel.kernel, inducing.inducing_variable
    mean, var = _mean_and_variance(
        shared(X, full_cov=False),  # [N]
        gpflow.covariances.Kuu(points, shared, jitter=jitter),  # [M, M]
        gpflow.covariances.Kuf(points, shared, X),  # [M, N]
        tf.convert_to_tensor(q_mu),
        tf.convert_to_tensor(q_sqrt),
    )
    return mean, var


@tf.custom_gradient
def _mean_and_variance(
    Kff: tf.Tensor, Kuu: tf.Tensor, Kuf: tf.Tensor, q_mu: tf.Tensor, q_sqrt: tf.Tensor
) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable[[tf.Tensor, tf.Tensor], Adjoints]]:
    """:func:`whitened_marginals` of the kernel's matrices, of Kff the diagonal.

    The derivative is written out, in the notation of reverse mode (Giles 2008: bars are gradients
    of the loss). With B_p = q_sqrt_p' A and G_p = 2 B_p diag(var_bar_p),

        q_mu_bar     = A mean_bar
        q_sqrt_p_bar = A G_p' in its lower triangle; what stands above it means nothing
        A_bar        = q_mu mean_bar' + sum_p q_sqrt_p G_p - 2 A diag(sum_p var_bar_p)
        Kff_bar      = sum_p var_bar_p
        Kuf_bar      = L'^-1 A_bar
        Kuu_bar      = -L'^-1 Phi(A_bar A') L^-1

    Phi takes the lower triangle with its diagonal halved. Kuu is symmetric, so the last may be
    transposed, and is. It is Giles' derivative of the
    Cholesky, L'^-1 Phi(L' L_bar) L^-1, of which L_bar = -tril(L'^-1 A_bar A') needs no forming: the
    part that tril removes would not reach the lower triangle of L' L_bar.

    q_mu' and the columns of all q_sqrt_p, as rows, meet A in one product per block of columns, and
    the zeros of a block are left out; GPflow's conditional multiplies each q_sqrt_p' with a copy of
    A of its own, zeros included. Automatic differentiation of the same formulas would make several
    passes more over [P, M, N].

    Sums over blocks are written as differences, and what is minus a sum is what is computed.
    TensorFlow makes one AddN of a sum of more than two terms, and AddN begins with whichever term
    has a buffer that nobody else is reading at that moment: equal calls would differ by rounding.
    Differences it leaves as they are.
    """
    L = tf.linalg.cholesky(Kuu)
    A = tf.linalg.triangular_solve(L, Kuf)
    blocks = _blocks(q_mu, q_sqrt, A)
    removed = tf.reduce_sum(tf.square(A), axis=0)
    for block in blocks:
        removed -= tf.reduce_sum(tf.square(block.B), axis=1)

    def gradients(mean_bar: tf.Tensor, var_bar: tf.Tensor) -> Adjoints:
        var_bar = tf.transpose(var_bar)  # [P, N]
        Kff_bar = tf.reduce_sum(var_bar, axis=0)
        q_mu_bar, q_sqrt_bar, minus_A_bar = _block_gradients(blocks, A, mean_bar, var_bar, Kff_bar)
        W = _phi(tf.linalg.matmul(minus_A_bar, A, transpose_b=True))
        half = tf.linalg.triangular_solve(L, W, adjoint=True)
        Kuu_bar = tf.linalg.triangular_solve(L, tf.transpose(half), adjoint=True)
        Kuf_bar = tf.linalg.triangular_solve(-L, minus_A_bar, adjoint=True)
        return Kff_bar, Kuu_bar, Kuf_bar, q_mu_bar, q_sqrt_bar

    return (tf.transpose(blocks[0].of_mean), tf.transpose(Kff - removed)), gradients


def _phi(W: tf.Tensor) -> tf.Tensor:
    """The lower triangle of W with its diagonal halved."""
    M = W.shape[0]
    return W * tf.constant(np.tril(np.ones([M, M])) - 0.5 * np.eye(M), W.dtype)


class _Block(NamedTuple):
    """w columns of all P factors."""

    start: int
    """s, the first column; above row s there are zeros."""
    rows: tf.Tensor
    """[P w, M - s], the columns as rows; in the first block, where s = 0, also q_mu' below them."""
    B: tf.Tensor
    """[P, w, N], their products with A."""
    of_mean: tf.Tensor
    """[P, N], the mean, in the first block; nothing in the others."""


def block_width(M: int, P: int) -> int:
    """Columns of each block of P factors [M, M]: as equal as can be, the last one smaller."""
    blocks = math.ceil(M / (BLOCK if P > 1 else BLOCK_ALONE))
    return math.ceil(M / blocks)


def _blocks(q_mu: tf.Tensor, q_sqrt: tf.Tensor, A: tf.Tensor) -> list[_Block]:
    P, M, _ = q_sqrt.shape
    width = block_width(M, P)
    transposed = tf.linalg.matrix_transpose(q_sqrt)
    blocks = []
    for start in range(0, M, width):
        columns = transposed[:, start : start + width, start:]
        w = columns.shape[1]
        rows = tf.reshape(columns, [P * w, M - start])
        if start == 0:
            rows = tf.concat([rows, tf.transpose(q_mu)], axis=0)
        product = tf.linalg.matmul(rows, A[start:])
        B = tf.reshape(product[: P * w], [P, w, -1])
        blocks.append(_Block(start, rows, B, product[P * w :]))
    return blocks


def _block_gradients(
    blocks: list[_Block], A: tf.Tensor, mean_bar: tf.Tensor, var_bar: tf.Tensor, Kff_bar: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """q_mu_bar, q_sqrt_bar and minus A_bar."""
    twice = 2 * var_bar[:, None, :]
    q_mu_bar, factors, to_A, widths = None, [], [], []
    for start, rows, B, _ in blocks:
        P, w, _ = B.shape
        widths.append(w)
        G = tf.reshape(twice * B, [P * w, -1])
        if start == 0:
            G = tf.concat([G, tf.transpose(mean_bar)], axis=0)
        rows_bar = tf.linalg.matmul(G, A[start:], transpose_b=True)
        if start == 0:
            q_mu_bar = tf.transpose(rows_bar[P * w :])
        columns_bar = tf.reshape(rows_bar[: P * w], [P, w, -1])
        factors.append(tf.pad(columns_bar, [[0, 0], [0, 0], [start, 0]]))
        to_A.append(tf.linalg.matmul(rows, G, transpose_a=True))  # rows from `start` on
    transposed = tf.linalg.matrix_transpose(tf.concat(factors, axis=1))
    minus_A_bar, rest = [], 2 * Kff_bar * A
    for width, part in zip(widths, to_A, strict=True):
        rest -= part
        minus_A_bar.append(rest[:width])
        rest = rest[width:]
    return q_mu_bar, transposed, tf.concat(minus_A_bar, axis=0)
