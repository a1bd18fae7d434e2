"""Steps that never fail, and steps of a bounded length."""

from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf

from natdgp.natgrad.safeguards import CLOSE, SafeStepFunction, first_valid, within
from natdgp.natgrad.step_divergence import step_kl, step_kl_diag
from natdgp.natgrad.steps import (
    guaranteed_natural_step,
    guaranteed_natural_step_diag,
    natural_step,
    natural_step_diag,
)
from tests.unit.natgrad.problems import (
    Problem,
    in_graph,
    problem_of,
    square_roots,
    with_eigenvalues,
)

GUARANTEED = first_valid(guaranteed_natural_step)
FALLBACK = first_valid(natural_step, correction=guaranteed_natural_step)
both = pytest.mark.parametrize("safe", [GUARANTEED, FALLBACK], ids=["guaranteed", "fallback"])
SIZES = [(1, 1000), (2, 1000), (5, 6000), (20, 1600), (40, 400), (70, 60), (150, 12)]
"""(M, P): 10,072 problems, each a latent GP of a batch."""


def _wild_problem(M: int, P: int, seed: int) -> Problem:
    """Indefinite C of any size, ill-conditioned L, and gradients over thirty decades."""
    generator = np.random.default_rng(seed)
    eigenvalues = generator.normal(size=(P, M)) * 10 ** generator.uniform(-8, 8, size=(P, 1))
    eigenvalues[::7] = -np.abs(eigenvalues[::7])  # negative definite
    eigenvalues[3::7] = -1.0  # I + C is exactly singular, but for rounding
    L = square_roots(seed, P, M, 1e4) * 10 ** generator.uniform(-6, 6, size=(P, 1, 1))
    return problem_of(L, with_eigenvalues(seed, eigenvalues), seed)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@both
def test_steps_never_raise_and_never_leave_the_gaussians(
    safe: SafeStepFunction, dtype: str
) -> None:
    graph = in_graph(safe)
    assert sum(P for _, P in SIZES) >= 10_000
    for seed, (M, P) in enumerate(SIZES):
        with np.errstate(over="ignore"):  # float32 cannot hold all of these gradients
            problem = [a.astype(dtype) for a in _wild_problem(M, P, seed)]
        gamma = 10 ** np.random.default_rng(seed).uniform(-2, 1, size=P)
        step = graph(*map(tf.constant, problem), tf.constant(gamma))
        diagonal = np.diagonal(step.q_sqrt, axis1=1, axis2=2)
        assert np.all(np.isfinite(step.q_mu))
        assert np.all(np.isfinite(step.q_sqrt))
        assert np.all(diagonal > 0)
        assert np.all(np.triu(step.q_sqrt, 1) == 0)
        assert dtype == "float32" or not np.any(step.refused)
        assert np.mean(step.refused) < 0.2


def test_fallback_is_the_exact_step_wherever_that_is_valid() -> None:
    eigenvalues = np.random.default_rng(0).uniform(-1.2, 3, size=(200, 20))
    problem = problem_of(square_roots(0, 200, 20), with_eigenvalues(0, eigenvalues))
    exact = natural_step(*problem.tensors(), 1.0)
    step = FALLBACK(*problem.tensors(), 1.0)
    valid = np.min(eigenvalues, axis=1) > -1
    assert 1 < np.sum(valid) < 199
    np.testing.assert_array_equal(exact.valid, valid)
    np.testing.assert_array_equal(step.corrected, ~valid)
    np.testing.assert_array_equal(step.q_sqrt[valid], exact.q_sqrt[valid])
    np.testing.assert_array_equal(step.q_mu.numpy()[:, valid], exact.q_mu.numpy()[:, valid])
    guaranteed = guaranteed_natural_step(*problem.tensors(), 1.0)
    np.testing.assert_array_equal(step.q_sqrt[~valid], guaranteed.q_sqrt[~valid])


def test_a_guaranteed_step_that_was_changed_is_counted() -> None:
    eigenvalues = np.array([[2.0, -0.4], [2.0, -0.6], [2.0, -1.5], [50.0, -0.1]])
    problem = problem_of(square_roots(0, 4, 2), with_eigenvalues(0, eigenvalues))
    step = GUARANTEED(*problem.tensors(), 1.0)
    np.testing.assert_array_equal(step.corrected, [False, True, True, False])
    assert not np.any(step.shortened | step.refused)
    np.testing.assert_array_equal(
        FALLBACK(*problem.tensors(), 1.0).corrected, [False, False, True, False]
    )


@both
def test_gradients_that_are_not_finite_are_refused(safe: SafeStepFunction) -> None:
    problem = problem_of(square_roots(0, 2, 70), np.zeros((2, 70, 70)))
    problem.q_sqrt_grad[1, 5, 5] = np.nan
    step = safe(*problem.tensors(), 1.0)
    np.testing.assert_array_equal(step.refused, [False, True])
    np.testing.assert_array_equal(step.q_sqrt[1], problem.q_sqrt[1])


def test_kl_is_that_of_two_gaussians() -> None:
    old, new = square_roots(0, 3, 12), square_roots(1, 3, 12)
    m_old, m_new = np.random.default_rng(0).normal(size=(2, 12, 3))
    of_gpflow = [
        gpflow.kullback_leiblers.gauss_kl(
            m_new[:, [p]] - m_old[:, [p]], new[[p]], K=old[p] @ old[p].T
        )
        for p in range(3)
    ]
    np.testing.assert_allclose(step_kl(m_new, new, m_old, old), of_gpflow, rtol=1e-10)
    s_new, s_old = np.random.default_rng(1).uniform(0.1, 2, size=(2, 12, 3))
    whole = step_kl(m_new, tf.linalg.diag(s_new.T), m_old, tf.linalg.diag(s_old.T))
    np.testing.assert_allclose(step_kl_diag(m_new, s_new, m_old, s_old), whole, rtol=1e-12)


@both
@pytest.mark.parametrize("max_kl", [1e-6, 0.01, 1.0, 30.0])
@pytest.mark.parametrize("largest", [0.3, 10.0, 1e4])
def test_the_trust_region_is_met_and_used(
    safe: SafeStepFunction, max_kl: float, largest: float
) -> None:
    eigenvalues = largest * np.random.default_rng(0).uniform(-0.5, 1, size=(8, 20))
    problem = problem_of(square_roots(0, 8, 20), with_eigenvalues(0, eigenvalues))
    arguments = problem.tensors()
    free = safe(*arguments, 1.0)
    free_kl = step_kl(free.q_mu, free.q_sqrt, *arguments[:2]).numpy()
    step = in_graph(within(max_kl, step_kl, safe))(*arguments, 1.0)
    kl = step_kl(step.q_mu, step.q_sqrt, *arguments[:2]).numpy()
    assert np.all(kl <= max_kl * (1 + 1e-9))
    assert not np.any(step.refused)
    short = free_kl > max_kl
    np.testing.assert_array_equal(step.shortened, short)
    assert np.all(kl[short] > 0.5 * CLOSE * max_kl)  # no shorter than it has to be
    np.testing.assert_allclose(step.q_sqrt[~short], free.q_sqrt[~short], atol=1e-13)


def test_the_trust_region_holds_for_a_diagonal_q() -> None:
    m, g = np.random.default_rng(0).normal(size=(2, 15, 4))
    s = np.random.default_rng(1).uniform(0.1, 2, size=(15, 4))
    fallback = first_valid(natural_step_diag, correction=guaranteed_natural_step_diag)
    gradients = tf.constant(10 * g), tf.constant(5 * g)
    step = within(0.1, step_kl_diag, fallback)(tf.constant(m), tf.constant(s), *gradients, 1.0)
    kl = step_kl_diag(step.q_mu, step.q_sqrt, m, s).numpy()
    assert np.all(kl <= 0.1 + 1e-12)
    assert np.all(kl > 0.05)


def test_the_trust_region_is_met_where_kl_falls_as_slowly_as_log_gamma() -> None:
    """Two eigenvalues of 1e12: KL is about log(1e12 gamma), 27 at gamma = 1 and 10 at 6e-8."""
    C = with_eigenvalues(0, np.array([[1e12, 1e12, 1.0]]))
    problem = problem_of(np.eye(3)[None], C)._replace(q_mu_grad=np.zeros((3, 1)))
    step = within(10.0, step_kl, FALLBACK)(*problem.tensors(), 1.0)
    kl = float(step_kl(step.q_mu, step.q_sqrt, problem.q_mu, problem.q_sqrt)[0])
    assert bool(step.shortened[0])
    assert 10 * CLOSE <= kl <= 10
