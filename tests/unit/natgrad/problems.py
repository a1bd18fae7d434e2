"""Problems to step on, and the step worked out in 80-bit arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gpflow
import numpy as np
import numpy.typing as npt
import tensorflow as tf

FloatArray = npt.NDArray[np.float64]


class Problem(NamedTuple):
    """q(u) and the gradients of a loss, with respect to q_mu and to the triangle of q_sqrt."""

    q_mu: FloatArray
    q_sqrt: FloatArray
    q_mu_grad: FloatArray
    q_sqrt_grad: FloatArray

    def tensors(self, dtype: str = "float64") -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        m, L, m_grad, L_grad = (tf.constant(array, dtype) for array in self)
        return m, L, m_grad, L_grad

    def parameters(self, dtype: str = "float64") -> tuple[gpflow.Parameter, gpflow.Parameter]:
        np_dtype = np.dtype(dtype)
        triangular = gpflow.utilities.triangular()
        return (
            gpflow.Parameter(self.q_mu.astype(dtype), dtype=np_dtype),
            gpflow.Parameter(self.q_sqrt.astype(dtype), transform=triangular, dtype=np_dtype),
        )

    def packed(self, dtype: str = "float64") -> tuple[tf.Tensor, tf.Tensor]:
        """The gradients of the unconstrained variables."""
        packed = gpflow.utilities.triangular().inverse(tf.constant(self.q_sqrt_grad, dtype))
        return tf.constant(self.q_mu_grad, dtype), packed


def problem_of(L: FloatArray, C: FloatArray, seed: int = 0, gamma: float = 1.0) -> Problem:
    """A problem on which a step of length gamma has a given C; see natdgp.natgrad.steps.

    dLoss/dL = tril(2 G L) and C = gamma L' (2 G) L, so dLoss/dL = tril(L'^-1 C) / gamma.
    """
    generator = np.random.default_rng(seed)
    P, M, _ = L.shape
    transposed = np.transpose(L, (0, 2, 1))
    g = np.linalg.solve(transposed, generator.normal(size=(P, M, 1)))[:, :, 0]
    L_grad = np.tril(np.linalg.solve(transposed, C)) / gamma
    return Problem(generator.normal(size=(M, P)), L, g.T, L_grad)


def square_roots(seed: int, P: int, M: int, condition: float = 10.0) -> FloatArray:
    """[P, M, M] lower triangular, of a condition number, in turned coordinates."""
    generator = np.random.default_rng(seed)
    Q = np.linalg.qr(generator.normal(size=(P, M, M)))[0]
    R = np.linalg.qr(np.transpose(Q * np.geomspace(1, 1 / condition, M), (0, 2, 1)))[1]
    signs = np.sign(np.diagonal(R, axis1=1, axis2=2))
    return np.transpose(R * signs[:, :, None], (0, 2, 1))


def with_eigenvalues(seed: int, eigenvalues: FloatArray) -> FloatArray:
    """[P, M, M] symmetric, of eigenvalues [P, M], in random coordinates."""
    P, M = eigenvalues.shape
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(P, M, M)))[0]
    C = np.einsum("pij,pj,pkj->pik", Q, eigenvalues, Q)
    symmetric: FloatArray = 0.5 * (C + np.transpose(C, (0, 2, 1)))
    return symmetric


def exact_step(problem: Problem, gamma: float) -> tuple[FloatArray, FloatArray]:
    """The natural step of every latent GP in 80-bit arithmetic, column by column."""
    m_new, L_new = np.empty_like(problem.q_mu), np.empty_like(problem.q_sqrt)
    for p in range(len(problem.q_sqrt)):
        L, L_grad = (a[p].astype(np.longdouble) for a in (problem.q_sqrt, problem.q_sqrt_grad))
        m, g = (a[:, p].astype(np.longdouble) for a in (problem.q_mu, problem.q_mu_grad))
        T = np.longdouble(gamma) * np.tril(L.T @ L_grad)
        B = np.eye(len(L)) + T + T.T - np.diag(np.diag(T))
        U, new = np.zeros_like(B), np.zeros_like(B)
        for k in reversed(range(len(L))):
            assert B[k, k] > 0
            U[: k + 1, k] = B[: k + 1, k] / np.sqrt(B[k, k])
            B[: k + 1, : k + 1] -= np.outer(U[: k + 1, k], U[: k + 1, k])
        for k in reversed(range(len(L))):
            new[:, k] = (L[:, k] - new[:, k + 1 :] @ U[k, k + 1 :]) / U[k, k]
        L_new[p] = new
        m_new[:, p] = m - np.longdouble(gamma) * (new @ (new.T @ g))
    return m_new, L_new


def relative_error(actual: Any, expected: FloatArray) -> float:
    """The largest error, as a share of the largest number."""
    return float(np.max(np.abs(np.asarray(actual) - expected)) / np.max(np.abs(expected)))


def in_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    traced: Callable[..., Any] = tf.function(function, autograph=False)
    return traced
