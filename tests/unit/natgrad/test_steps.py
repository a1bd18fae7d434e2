"""The steps against GPflow's and against 80-bit arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from check_shapes.exceptions import ShapeMismatchError
from gpflow.optimizers import XiNat, XiSqrtMeanVar, XiTransform
from hypothesis import given, settings
from hypothesis import strategies as st

from natdgp.natgrad.steps import (
    Step,
    guaranteed_natural_step,
    guaranteed_natural_step_diag,
    mean_sqrt_step,
    mean_sqrt_step_diag,
    natural_step,
    natural_step_diag,
)
from tests.unit.natgrad.problems import (
    FloatArray,
    Problem,
    exact_step,
    problem_of,
    relative_error,
    square_roots,
    with_eigenvalues,
)

FULL = [natural_step, guaranteed_natural_step, mean_sqrt_step]
PAIRS = [
    (natural_step, natural_step_diag),
    (guaranteed_natural_step, guaranteed_natural_step_diag),
    (mean_sqrt_step, mean_sqrt_step_diag),
]
EPSILON = np.finfo(np.float64).eps


def _gpflow(
    problem: Problem, gamma: float, xi: XiTransform, dtype: str = "float64"
) -> tuple[FloatArray, FloatArray]:
    q_mu, q_sqrt = problem.parameters(dtype)
    optimizer = gpflow.optimizers.NaturalGradient(gamma, xi)
    optimizer._natgrad_apply_gradients(*problem.packed(dtype), q_mu, q_sqrt)
    return q_mu.numpy(), q_sqrt.numpy()


def _valid_problem(M: int, P: int, log_condition: float, gamma: float, seed: int) -> Problem:
    """One whose exact step is valid: eigenvalues of C between -gamma / 2 and 3."""
    eigenvalues = np.random.default_rng(seed).uniform(-0.5 * gamma, 3.0, size=(P, M))
    L = square_roots(seed, P, M, 10**log_condition)
    return problem_of(L, with_eigenvalues(seed + 1, eigenvalues), seed, gamma)


DRAWN = {
    "M": st.integers(1, 200),
    "P": st.integers(1, 12),
    "log_condition": st.floats(0, 6),
    "gamma": st.floats(-4, 0).map(lambda x: float(10**x)),
    "seed": st.integers(0, 2**32 - 2),
}


@pytest.mark.parametrize(
    ("function", "xi"), [(natural_step, XiNat()), (mean_sqrt_step, XiSqrtMeanVar())]
)
@settings(max_examples=50)
@given(**DRAWN)
def test_a_step_is_gpflows(
    function: Callable[..., Step],
    xi: XiTransform,
    M: int,
    P: int,
    log_condition: float,
    gamma: float,
    seed: int,
) -> None:
    problem = _valid_problem(M, P, log_condition, gamma, seed)
    step = function(*problem.tensors(), gamma)
    expected = _gpflow(problem, gamma, xi)
    assert bool(tf.reduce_all(step.valid))
    assert relative_error(step.q_mu, problem.q_mu) > 1e-9  # it moved
    # GPflow factorises S = L L', whose condition number is that of L squared: that, and not the
    # step, is what the second term allows for; the next test shows on which side the error is.
    tolerance = 1e-10 + 100 * M * EPSILON * 100**log_condition
    if function is natural_step and log_condition < 1.5:
        tolerance = 1e-10
    assert relative_error(step.q_mu, expected[0]) < tolerance
    assert relative_error(step.q_sqrt, expected[1]) < tolerance


@settings(max_examples=25)
@given(**{**DRAWN, "M": st.integers(1, 140), "P": st.integers(1, 2)})
def test_the_natural_step_is_right_where_gpflow_has_lost_its_digits(
    M: int, P: int, log_condition: float, gamma: float, seed: int
) -> None:
    problem = _valid_problem(M, P, log_condition, gamma, seed)
    step = natural_step(*problem.tensors(), gamma)
    m_new, L_new = exact_step(problem, gamma)
    assert relative_error(step.q_mu, m_new) < 1e-10
    assert relative_error(step.q_sqrt, L_new) < 1e-10


def test_at_a_condition_number_of_a_million_gpflow_is_the_one_that_errs() -> None:
    problem = _valid_problem(60, 2, 6.0, 0.3, seed=0)
    m_new, _ = exact_step(problem, 0.3)
    assert relative_error(_gpflow(problem, 0.3, XiNat())[0], m_new) > 1e-7
    assert relative_error(natural_step(*problem.tensors(), 0.3).q_mu, m_new) < 1e-11


@settings(max_examples=40)
@given(**{**DRAWN, "log_condition": st.floats(0, 4)})
def test_float32_is_within_1e_4_or_gpflow_is_not_either(
    M: int, P: int, log_condition: float, gamma: float, seed: int
) -> None:
    problem = _valid_problem(M, P, log_condition, gamma, seed)
    # What float32 makes of the problem is the problem; only the step's own rounding is looked at.
    rounded = Problem(*(a.astype(np.float32).astype(np.float64) for a in problem))
    m_new, L_new = exact_step(rounded, float(np.float32(gamma)))
    step = natural_step(*rounded.tensors("float32"), gamma)
    assert bool(tf.reduce_all(step.valid))
    try:
        m_gpflow, L_gpflow = _gpflow(rounded, gamma, XiNat(), "float32")
        errors = relative_error(m_gpflow, m_new), relative_error(L_gpflow, L_new)
    except tf.errors.InvalidArgumentError:
        errors = (0.0, 0.0)  # GPflow failed
    for actual, expected, error in zip(step[:2], (m_new, L_new), errors, strict=True):
        assert relative_error(actual, expected) < max(1e-4, error)


def test_float32_holds_where_gpflows_fails() -> None:
    """Scales of L over four decades: S has a condition number that float32 cannot factorise."""
    generator = np.random.default_rng(0)
    L = np.eye(50) + np.tril(generator.normal(size=(2, 50, 50)), -1) / 50
    L = L * np.geomspace(1, 1e-4, 50)
    C = with_eigenvalues(1, generator.uniform(-0.3, 2, size=(2, 50)))
    problem = problem_of(L, C)
    m_new, L_new = exact_step(problem, 1.0)
    step = natural_step(*problem.tensors("float32"), 1.0)
    assert relative_error(step.q_sqrt, L_new) < 1e-4
    assert relative_error(step.q_mu, m_new) < 1e-4
    try:
        m_gpflow, _ = _gpflow(problem, 1.0, XiNat(), "float32")
    except tf.errors.InvalidArgumentError:
        return
    assert relative_error(m_gpflow, m_new) > 1e-4


@settings(max_examples=60)
@given(
    M=st.integers(1, 100),
    log_largest=st.floats(-2, 2),
    seed=st.integers(0, 2**32 - 2),
    dtype=st.sampled_from(["float64", "float32"]),
)
def test_a_guaranteed_step_is_never_against_the_gradient(
    M: int, log_largest: float, seed: int, dtype: str
) -> None:
    """Along the eigenvectors of C, S grows where the gradient asks for it, and shrinks likewise."""
    eigenvalues = np.random.default_rng(seed).uniform(-1, 1, size=(2, M)) * 10**log_largest
    C = with_eigenvalues(seed, eigenvalues)
    problem = problem_of(np.tile(np.eye(M), (2, 1, 1)), C)
    step = guaranteed_natural_step(*problem.tensors(dtype), 1.0)
    assert bool(tf.reduce_all(step.valid))
    x, V = np.linalg.eigh(C)
    new = step.q_sqrt.numpy().astype(np.float64)
    growth = np.sum((np.transpose(new, (0, 2, 1)) @ V) ** 2, axis=1)  # 1 / b(x)
    rounding = 1e-10 if dtype == "float64" else 1e-5 * (1 + 10**log_largest)
    assert np.all(np.where(x < 0, growth >= 1 - rounding, growth <= 1 + rounding))
    share = step.share.numpy()[:, None]
    np.testing.assert_allclose(growth, 1 / (1 + share * x), rtol=rounding, atol=rounding)
    assert np.all(x.min(axis=1) * share[:, 0] > -1)
    # No shorter than need be: without large eigenvalues of the other sign, to a third.
    needed = np.minimum(1, 0.5 / np.maximum(-x.min(axis=1), 1e-9))
    assert np.all(share[:, 0] > needed / 1.5)


def test_a_guaranteed_step_is_the_exact_one_unless_a_variance_more_than_doubles() -> None:
    for lowest, share in ((-0.499, 1.0), (-0.501, 0.5 / 0.501), (-40.0, 0.5 / 40)):
        eigenvalues = np.linspace(lowest, 30, 6)[None]
        problem = problem_of(square_roots(0, 1, 6), with_eigenvalues(0, eigenvalues))
        step = guaranteed_natural_step(*problem.tensors(), 1.0)
        exact = natural_step(*problem.tensors(), share)
        np.testing.assert_allclose(step.share, [share], rtol=1e-12)
        np.testing.assert_allclose(step.q_sqrt, exact.q_sqrt, atol=1e-12)
        np.testing.assert_allclose(step.q_mu, exact.q_mu, atol=1e-10)


@pytest.mark.parametrize("largest", [1e2, 1e6, 1e15])
def test_a_guaranteed_step_is_shortened_until_it_is_valid(largest: float) -> None:
    """An eigenvalue of -3 among a hundred large ones, which its estimate misses."""
    eigenvalues = np.random.default_rng(0).uniform(0, largest, size=(5, 100))
    eigenvalues[:, 0] = -3
    problem = problem_of(square_roots(0, 5, 100), with_eigenvalues(0, eigenvalues))
    step = guaranteed_natural_step(*problem.tensors(), 1.0)
    assert bool(tf.reduce_all(step.valid))
    assert np.all(step.share < 1 / 3)
    assert relative_error(step.q_sqrt, problem.q_sqrt) > 1e-3


@pytest.mark.parametrize("M", [3, 64, 65, 130, 200])
def test_only_the_latent_gps_whose_step_leaves_the_gaussians_stay(M: int) -> None:
    eigenvalues = np.random.default_rng(M).uniform(-0.9, 3, size=(4, M))
    eigenvalues[1, 0] = eigenvalues[3, -1] = -1.1  # one just outside the cone
    problem = problem_of(square_roots(1, 4, M), with_eigenvalues(2, eigenvalues))
    step = natural_step(*problem.tensors(), 1.0)
    np.testing.assert_array_equal(step.valid, [True, False, True, False])
    for p, moved in enumerate([True, False, True, False]):
        assert np.array_equal(step.q_sqrt[p], problem.q_sqrt[p]) != moved
        assert np.array_equal(step.q_mu[:, p], problem.q_mu[:, p]) != moved


@pytest.mark.parametrize("distance", [1e-3, 1e-9, -1e-9, -1e-3])
def test_definiteness_is_decided_sharply(distance: float) -> None:
    eigenvalues = np.random.default_rng(0).uniform(0, 5, size=(1, 150))
    eigenvalues[0, 7] = -1 + distance
    L = np.tile(np.eye(150), (1, 1, 1))
    problem = problem_of(L, with_eigenvalues(0, eigenvalues))
    assert bool(natural_step(*problem.tensors(), 1.0).valid[0]) == (distance > 0)


@pytest.mark.parametrize(("full", "diagonal"), PAIRS)
def test_diagonal_steps_are_the_full_ones_on_diagonal_problems(
    full: Callable[..., Step], diagonal: Callable[..., Step]
) -> None:
    generator = np.random.default_rng(0)
    s = generator.uniform(0.1, 2, size=(30, 4))
    s_grad = generator.uniform(-0.5, 3, size=(30, 4))
    m, g = generator.normal(size=(2, 30, 4))
    flat = diagonal(*map(tf.constant, (m, s, g, s_grad)), 0.3)
    whole = full(m, *(tf.linalg.diag(a.T) if a is not g else g for a in (s, g, s_grad)), 0.3)
    assert bool(tf.reduce_all(flat.valid))
    np.testing.assert_allclose(flat.q_mu, whole.q_mu, rtol=1e-12)
    np.testing.assert_allclose(tf.linalg.diag(tf.transpose(flat.q_sqrt)), whole.q_sqrt, rtol=1e-12)
    assert relative_error(flat.q_sqrt, s) > 0.01


def test_diagonal_steps_refuse_what_leaves_the_gaussians() -> None:
    s, s_grad = tf.ones((2, 2), tf.float64), tf.constant([[-3.0, 1.0], [1.0, 1.0]], tf.float64)
    step = natural_step_diag(s, s, s, s_grad, 1.0)
    np.testing.assert_array_equal(step.valid, [False, True])
    np.testing.assert_array_equal(step.q_sqrt[:, 0], s[:, 0])
    assert bool(tf.reduce_all(guaranteed_natural_step_diag(s, s, s, s_grad, 1e3).valid))
    np.testing.assert_array_equal(mean_sqrt_step_diag(s, s, s, -s_grad, 1.0).valid, [False, True])


@pytest.mark.parametrize("function", FULL)
@pytest.mark.parametrize("M", [1, 33, 70])
def test_eager_traced_dynamic_and_compiled_agree(function: Callable[..., Step], M: int) -> None:
    eigenvalues = np.random.default_rng(0).uniform(-0.5, 3, size=(3, M))
    eigenvalues[1, 0] = -1.8  # and with gamma 0.9 still below -1
    problem = problem_of(square_roots(0, 3, M), with_eigenvalues(0, eigenvalues))
    arguments = [*problem.tensors(), tf.constant(0.9, tf.float64)]
    dynamic = [tf.TensorSpec([None] * a.shape.rank, a.dtype) for a in arguments]
    eager = function(*arguments)
    np.testing.assert_array_equal(eager.valid, [True, function is not natural_step, True])
    # XLA iterates for eigenvalues to some 1e-7, which is how exactly a step is shortened.
    loose = 1e-5 if function is guaranteed_natural_step else 1e-9
    for options, tolerance in (
        ({}, 1e-9),
        ({"input_signature": dynamic}, 1e-9),
        ({"jit_compile": True}, loose),
    ):
        step = tf.function(function, **options)(*arguments)
        np.testing.assert_allclose(step.q_mu, eager.q_mu, rtol=tolerance, atol=0.1 * tolerance)
        np.testing.assert_allclose(step.q_sqrt, eager.q_sqrt, rtol=tolerance, atol=0.1 * tolerance)
        np.testing.assert_array_equal(step.valid, eager.valid)


def test_gamma_may_differ_between_latent_gps_and_a_python_number_keeps_its_digits() -> None:
    problem = _valid_problem(20, 3, 1.0, 1.0, seed=0)
    gammas = [0.1, 0.3, 1.0]
    together = natural_step(*problem.tensors(), tf.constant(gammas, tf.float64))
    for p, gamma in enumerate(gammas):
        alone = natural_step(*problem.tensors(), gamma)
        np.testing.assert_allclose(together.q_sqrt[p], alone.q_sqrt[p], rtol=1e-12, atol=1e-14)


def test_a_wrong_shape_is_named() -> None:
    problem = _valid_problem(5, 2, 1.0, 1.0, seed=0)
    with pytest.raises(ShapeMismatchError, match="q_mu_grad"):
        natural_step(problem.q_mu, problem.q_sqrt, problem.q_mu_grad.T, problem.q_sqrt_grad, 0.1)
