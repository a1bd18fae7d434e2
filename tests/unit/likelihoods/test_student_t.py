from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from scipy import special, stats

from natdgp.likelihoods.student_t import (
    StudentTLikelihood,
    StudentTSettings,
    expected_log1p_square,
)
from tests.conftest import FloatArray
from tests.unit.likelihoods.oracles import batch, integrated_crps, over_gaussian

SCALE, DF = 0.3, 4.0


def _student_t(df: float = DF, scale: float = SCALE) -> StudentTLikelihood:
    return StudentTSettings(name="student_t", scale=scale, degrees_of_freedom=df).build()


def _log_t(residual: float, df: float) -> float:
    """Log density of SCALE t."""
    at_0 = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return at_0 - math.log(SCALE) - (df + 1) / 2 * math.log1p((residual / SCALE) ** 2 / df)


def _mixture_cdf(y: float, mean: FloatArray, var: FloatArray, df: float) -> float:
    """The CDF of samples' y = N(m, v) + SCALE t, with f integrated out."""

    def cdf(f: float) -> float:
        return float(special.stdtr(df, (y - f) / SCALE))

    return float(np.mean([over_gaussian(cdf, m, v, [y]) for m, v in zip(mean, var, strict=True)]))


# --- E log(1 + a^2) ---------------------------------------------------------------------------

MEANS = np.array([0, 1e-3, 0.1, 1, 3, 30, 1e3, 1e6])
VARIANCES = np.array([1e-8, 1e-3, 0.1, 1, 11, 44, 1e3, 1e5, 5e7])


def _grid(dtype: Any = "float64") -> tuple[tf.Tensor, tf.Tensor]:
    mean, var = np.meshgrid(MEANS, VARIANCES)
    return tf.constant(mean[None], dtype), tf.constant(var[None], dtype)


def _integral(function: Any) -> FloatArray:
    """Of function(a) over a ~ N(mean, var), at each of the grid's places."""
    near_zero = [s * x for s in (-1, 1) for x in (0.3, 3.0, 30.0)]
    return np.array([[over_gaussian(function, m, v, near_zero) for m in MEANS] for v in VARIANCES])


def test_expected_log_is_its_integral_over_a_wide_range() -> None:
    found = expected_log1p_square(*_grid())[0]
    np.testing.assert_allclose(found, _integral(lambda a: math.log1p(a * a)), rtol=0, atol=1e-9)


def test_gradients_of_the_expected_log_are_their_integrals() -> None:
    mean, var = _grid()
    with tf.GradientTape() as tape:
        tape.watch((mean, var))
        value = tf.reduce_sum(expected_log1p_square(mean, var))
    by_mean, by_var = (np.asarray(g)[0] for g in tape.gradient(value, (mean, var)))
    # Bonnet's and Price's theorems: E of the first, and half of E of the second derivative.
    first = _integral(lambda a: 2 * a / (1 + a * a))
    second = _integral(lambda a: (1 - a * a) / (1 + a * a) ** 2)
    size = 1 + MEANS**2 + VARIANCES[:, None]
    np.testing.assert_allclose(by_mean * np.sqrt(size), first * np.sqrt(size), atol=1e-7)
    np.testing.assert_allclose(by_var * size, second * size, atol=1e-6)


def test_expected_log_in_float32_is_as_good_as_its_largest_logarithm() -> None:
    found = expected_log1p_square(*_grid("float32"))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected_log1p_square(*_grid()), rtol=0, atol=4e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_expected_log_is_finite_at_the_extremes(dtype: str) -> None:
    mean, var = (
        tf.constant([[part]], dtype)
        for part in ([0, 0, 1e15, 1e15, -1e15, 0], [0, 1e30, 0, 1e-30, 1e30, 1e-38])
    )
    with tf.GradientTape() as tape:
        tape.watch((mean, var))
        value = expected_log1p_square(mean, var)
    for tensor in (value, *tape.gradient(value, (mean, var))):
        assert np.all(np.isfinite(tensor))
    assert float(value[0, 0, 1]) == pytest.approx(
        np.log(1e30) + special.digamma(0.5) + np.log(2), abs=1e-4
    )


# --- expected log density ---------------------------------------------------------------------


@pytest.mark.parametrize("var_over_noise", [1e-8, 11.0, 44.0, 1e3, 1e8])
@pytest.mark.parametrize("df", [2.1, 4.0, 50.0])
def test_expected_log_density_is_its_integral(var_over_noise: float, df: float) -> None:
    residuals = SCALE * np.array([0.0, 1.0, 30.0, 1e6])
    var = np.full((1, 4, 1), var_over_noise * SCALE**2)
    found = _student_t(df).expected_log_density(np.zeros((1, 4, 1)), var, residuals[:, None])
    expected = [
        over_gaussian(
            lambda f, y=y: _log_t(y - f, df),  # type: ignore[misc]
            0.0,
            float(var[0, 0, 0]),
            [y + k * SCALE for k in (-30, -1, 0, 1, 30)],
        )
        for y in residuals
    ]
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-9 * (df + 1))


def test_expected_log_density_is_summed_over_outputs() -> None:
    mean, var, Y = batch()
    likelihood = _student_t()
    apart = [
        likelihood.expected_log_density(mean[..., [q]], var[..., [q]], Y[:, [q]]) for q in (0, 1)
    ]
    np.testing.assert_allclose(
        likelihood.expected_log_density(mean, var, Y), apart[0] + apart[1], rtol=1e-13
    )


def test_the_scale_learns_by_the_right_gradient() -> None:
    mean, _, Y = batch(Q=1)
    var = np.full_like(mean, 44 * SCALE**2)
    likelihood = _student_t()

    def total(scale: float) -> float:
        return float(tf.reduce_sum(_student_t(scale=scale).expected_log_density(mean, var, Y)))

    with tf.GradientTape() as tape:
        value = tf.reduce_sum(likelihood.expected_log_density(mean, var, Y))
    (gradient,) = tape.gradient(value, likelihood.gpflow.trainable_variables)
    slope = special.expit(np.log(np.expm1(SCALE - 1e-6)))  # of softplus, the parameter's transform
    h = 1e-4
    by_difference = (total(SCALE + h) - total(SCALE - h)) / (2 * h)
    assert float(gradient) == pytest.approx(slope * by_difference, rel=1e-5)  # of the difference


# --- predictive density -----------------------------------------------------------------------


@pytest.mark.parametrize("var_over_noise", [0.5, 44.0, 1e3])
def test_log_density_is_that_of_an_integral_over_f(var_over_noise: float) -> None:
    mean, _, Y = batch(Q=1)
    var = var_over_noise * SCALE**2
    found = _student_t().log_density(mean, np.full_like(mean, var), Y)

    def density(y: float, m: float) -> float:
        return over_gaussian(lambda f: math.exp(_log_t(y - f, DF)), m, var, [y])

    for row, y in enumerate(Y[:, 0]):
        expected = np.log(np.mean([density(y, m) for m in mean[:, row, 0]]))
        # Nats, of the grid of precisions.
        assert float(found[row]) == pytest.approx(expected, rel=0, abs=1e-5)


@pytest.mark.parametrize(("df", "within"), [(2.1, 1e-2), (4.0, 1e-2), (50.0, 3e-2)])
def test_log_density_holds_in_the_tails(df: float, within: float) -> None:
    Y = SCALE * 10.0 ** np.arange(9)[:, None]
    zeros = np.zeros((1, 9, 1))
    found = _student_t(df).log_density(zeros, zeros, Y)
    error = np.abs(found - stats.t.logpdf(Y[:, 0], df, scale=SCALE))
    assert np.all(error[:4] < 1e-4)
    assert np.all(error < within)  # where the grid of precisions ends and a closed form begins


@pytest.mark.parametrize("var_over_noise", [0.1, 1.0, 44.0])
def test_cdf_is_that_of_an_integral_over_f(var_over_noise: float) -> None:
    mean, _, Y = batch(S=2, n=6)
    var = np.full_like(mean, var_over_noise * SCALE**2)
    found = _student_t().cdf(mean, var, Y)
    for row, q in np.ndindex(6, 2):
        expected = _mixture_cdf(Y[row, q], mean[:, row, q], var[:, row, q], DF)
        assert float(found[row, q]) == pytest.approx(expected, abs=1e-6)


def test_mean_and_variance_are_those_of_the_mixture() -> None:
    mean, var, _ = batch()
    y_mean, y_var = _student_t().mean_and_variance(mean, var)
    np.testing.assert_allclose(y_mean, mean.mean(axis=0), rtol=1e-12)
    second = (mean**2 + var + SCALE**2 * stats.t.var(DF)).mean(axis=0)
    np.testing.assert_allclose(y_var, second - mean.mean(axis=0) ** 2, rtol=1e-12)


# --- CRPS -------------------------------------------------------------------------------------


def _exact_crps(df: float, mean: FloatArray, var: FloatArray, y: float) -> float:
    """By the integral of its definition; the CDF is a sum over 4000 precisions."""
    w, weights = _fine_precisions(df)
    std = np.sqrt(var[:, None] + SCALE**2 / w)
    return integrated_crps(
        lambda z: float(np.mean(special.ndtr((z - mean[:, None]) / std) @ weights)), y, 1e7
    )


def _fine_precisions(df: float) -> tuple[FloatArray, FloatArray]:
    x = np.linspace(-60 / df - 12, 5, 4000)
    log_weights = df / 2 * (x - np.exp(x))
    return np.exp(x), special.softmax(log_weights)


@pytest.mark.parametrize(("df", "within"), [(2.05, 5e-4), (3.0, 2e-5), (4.0, 2e-5), (50.0, 2e-5)])
def test_crps_is_the_integral_that_defines_it(df: float, within: float) -> None:
    mean, _, Y = batch(S=3, n=4, Q=1)
    var = SCALE**2 * np.array([0.0, 0.1, 44.0])[:, None, None] * np.ones((1, 4, 1))
    Y[0] = 30.0  # an outlier of 100 scales
    likelihood = _student_t(df)
    found = likelihood.crps(mean, var, Y)
    _, y_var = likelihood.mean_and_variance(mean, var)
    for row in range(4):
        expected = _exact_crps(df, mean[:, row, 0], var[:, row, 0], Y[row, 0])
        error = abs(float(found[row, 0]) - expected) / np.sqrt(float(y_var[row, 0]))
        assert error < within, (row, error)


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "floor"),
    [("scale", 1e-6, "0.000001"), ("scale", 1e-7, "0.000001"), ("degrees_of_freedom", 2.0, "2")],
)
def test_values_at_or_below_the_floor_are_refused(field: str, value: float, floor: str) -> None:
    with pytest.raises(ValidationError, match=rf"{field}\n  Input should be greater than {floor}"):
        StudentTSettings.model_validate({"name": "student_t", field: value})
    assert _student_t(scale=1.1e-6).gpflow.scale.numpy() == pytest.approx(1.1e-6)
