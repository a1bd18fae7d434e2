"""A blocked factorisation and solve in one, which says by NaN that its matrix is not definite.

Most of the work is matrix products, in which TensorFlow on the CPU is several times faster than in
its Cholesky, and blocks that are zero are never multiplied.

Whether a matrix is positive definite is a property of the whole of it, but a block factorisation
takes it apart: it is exactly when every diagonal block is that is left after eliminating the blocks
behind it (the Schur complement). The Cholesky of such a block is the test, for it has to be
computed anyway: TensorFlow (from 2.13 on the CPU, always on the GPU and under XLA) does not raise
where it fails but fills the factor with NaN, for the one matrix of the batch and no other. The
products that follow carry NaN to every block before it. A test fails should TensorFlow ever raise
again. On the CPU it also writes a warning to the log, once for each failure.
"""

from __future__ import annotations

import tensorflow as tf
from check_shapes import check_shapes

LEAF = 128
"""The most rows of a block that is factorised whole (measured: benchmarks/natgrad_step.py)."""

COLUMNS = 32
"""The fewest columns of a block of a product (measured there too)."""


@check_shapes("A: [P, M, M]", "L: [P, M, M]", "return: [P, M, M]")
def upper_product(A: tf.Tensor, L: tf.Tensor) -> tf.Tensor:
    """The upper triangle of A' L, for lower triangular A and L.

    Column block by column block, each from the rows where both factors are not zero: a third
    of the work of the whole product with four blocks, a quarter with eight. One block if M is
    small, or not known when the graph is traced.

    :returns: a matrix whose strictly lower triangle holds parts of the product or zeros, and means
        nothing.
    """

    def columns(start: int, end: int | None) -> tf.Tensor:
        return tf.matmul(A[:, start:, :end], L[:, start:, start:end], transpose_a=True)

    M = L.shape[-1]
    if M is None or M < 2 * COLUMNS:
        return columns(0, M)
    blocks = []
    width = -(-M // min(8, M // COLUMNS))
    for start in range(0, M, width):
        end = min(start + width, M)
        block = columns(start, end)
        blocks.append(tf.pad(block, [[0, 0], [0, M - end], [0, 0]]) if end < M else block)
    return tf.concat(blocks, axis=2)


@check_shapes("C: [P, M, M]", "L: [P, M, M]", "return: [P, M, M]")
def times_inverse_factor(C: tf.Tensor, L: tf.Tensor) -> tf.Tensor:
    """L U'^-1, where B = I + C = U U' with U upper triangular.

    In halves, with R any rows that are to be multiplied by U'^-1 as well,

        B = [B11 B12; . B22],   U = [U11 U12; 0 U22]
        B22 = U22 U22',   U12 = B12 U22'^-1,   B11 - U12 U12' = U11 U11'
        [R1 R2] U'^-1 = [(R1 - Y2 U12') U11'^-1,  Y2],   Y2 = R2 U22'^-1

    so U12, R and the rows of L ride through one recursion, and U is never put together.

    :param C: symmetric; only its upper triangle is read.
    :param L: lower triangular.
    :returns: the product, lower triangular; its first column holds NaN for a latent GP whose B is
        not positive definite.
    """
    return _eliminate(C, L, None)


def _eliminate(C: tf.Tensor, L: tf.Tensor, rows: tf.Tensor | None) -> tf.Tensor:
    """[rows; L] U'^-1, stacked. A size not known when the graph is traced is one leaf."""
    n = L.shape[-1]
    if n is None or n <= LEAF:
        X = L if rows is None else tf.concat([rows, L], axis=1)
        return _solved(X, C)

    k = _split(n)
    r = 0 if rows is None else rows.shape[1]
    B12, L21 = C[:, :k, k:], L[:, k:, :k]
    right = B12 if rows is None else tf.concat([B12, rows[:, :, k:]], axis=1)
    left = L21 if rows is None else tf.concat([rows[:, :, :k], L21], axis=1)

    Y = _eliminate(C[:, k:, k:], L[:, k:, k:], right)  # [U12; rows; L22]
    eliminated = tf.matmul(Y, Y[:, :k], transpose_b=True)
    Z = _eliminate(  # [rows; L21; L11]
        C[:, :k, :k] - eliminated[:, :k], L[:, :k, :k], left - eliminated[:, k:]
    )
    zeros = tf.zeros([tf.shape(C)[0], k, n - k], C.dtype)
    return tf.concat(
        [
            tf.concat([Z[:, :r], Z[:, r + n - k :], Z[:, r : r + n - k]], axis=1),
            tf.concat([Y[:, k : k + r], zeros, Y[:, k + r :]], axis=1),
        ],
        axis=2,
    )


def _split(n: int) -> int:
    """Half of n, in whole leaves of equal size."""
    leaves = -(-n // LEAF)
    return (leaves // 2) * -(-n // leaves)


def _solved(X: tf.Tensor, C: tf.Tensor) -> tf.Tensor:
    """X U^-T for I + C = U U', which with rows and columns reversed is a Cholesky factorisation."""
    identity = tf.eye(tf.shape(C)[-1], dtype=C.dtype)
    factor = tf.linalg.cholesky(tf.reverse(identity + C, axis=[1, 2]))  # reads C's upper triangle
    reversed_rows = tf.linalg.matrix_transpose(tf.reverse(X, axis=[2]))
    solution = tf.linalg.triangular_solve(factor, reversed_rows)
    return tf.reverse(tf.linalg.matrix_transpose(solution), axis=[2])
