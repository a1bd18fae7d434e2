"""How negative the eigenvalues of a symmetric matrix are, for much less than its factorisation."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from check_shapes import check_shapes

ITERATIONS = 6
"""Products with the matrix (measured: benchmarks/natgrad_step.py)."""

_IRRATIONAL = (np.sqrt(5) - 1) / 2

_ROUNDING = 1e3 * np.finfo(np.float64).eps


@check_shapes("upper: [P, M, M]", "return: [P]")
def lowest_eigenvalue(upper: tf.Tensor) -> tf.Tensor:
    """An estimate of the smallest eigenvalue, or 0 if that is positive, from below as a rule.

    Lanczos' method (Golub and Van Loan, Matrix Computations, section 10.1): after k products with
    C the smallest Ritz value theta is the smallest of v' C v over all unit vectors v of a subspace
    of dimension k, so never below the smallest eigenvalue; and some eigenvalue is within the norm
    of the residual C v - theta v. The estimate is the lower end of that, theta - |C v - theta v|.
    With six products it is right to a fifth on most spectra. It is exact (the residual is 0) up to
    M = 6, and may miss an eigenvalue that is small beside large ones of the other sign: the caller
    has to verify.

    In float64 whatever the type of C: TensorFlow's float32 product of a matrix and a vector is the
    slower one on the CPU, by a fixed 0.1 ms.

    :param upper: C's upper triangle, zeros below.
    """
    C = tf.cast(upper, tf.float64)
    diagonal = tf.linalg.diag_part(C)[:, :, None]
    numbers = tf.range(1, tf.shape(C)[1] + 1, dtype=C.dtype)
    v = (tf.square(numbers) * _IRRATIONAL) % 1 - 0.5  # without a pattern, on every device the same
    v = tf.broadcast_to((v / tf.norm(v))[:, None], tf.shape(diagonal))
    before, alphas, betas = tf.zeros_like(v), [], [tf.zeros_like(v[:, :1])]
    for _ in range(ITERATIONS):
        w = tf.matmul(C, v) + tf.matmul(C, v, transpose_a=True) - diagonal * v - betas[-1] * before
        alpha = tf.reduce_sum(v * w, axis=1, keepdims=True)
        w -= alpha * v
        beta = tf.norm(w, axis=1, keepdims=True)
        # What is left of an exhausted subspace is rounding.
        exhausted = beta <= _ROUNDING * (tf.abs(alpha) + betas[-1])
        beta = tf.where(exhausted, tf.zeros_like(beta), beta)
        before, v = v, tf.math.divide_no_nan(w, beta)
        alphas.append(alpha)
        betas.append(beta)
    below = tf.linalg.diag(tf.concat(betas[1:-1], axis=1)[:, :, 0])  # eigh reads this triangle
    T = tf.pad(below, [[0, 0], [1, 0], [0, 1]])
    T = tf.linalg.set_diag(T, tf.concat(alphas, axis=1)[:, :, 0])
    T = tf.where(tf.math.is_finite(T), T, tf.zeros_like(T))  # eigh raises for NaN
    values, vectors = tf.linalg.eigh(T)
    residual = betas[-1][:, 0, 0] * tf.abs(vectors[:, -1, 0])
    return tf.cast(tf.minimum(values[:, 0] - residual, 0), upper.dtype)
