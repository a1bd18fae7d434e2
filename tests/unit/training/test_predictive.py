from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.deep_gp import DeepGP
from natdgp.models.noise import Stream
from natdgp.models.settings import GaussianSettings, ModelSettings, StudentTSettings
from natdgp.training.predictive import (
    INTERVAL,
    STUDENT_T_DRAWS,
    PredictiveSums,
    gaussian_mixture_crps,
    mixture_log_density,
    predictive_of,
    sampled_crps,
)
from tests.conftest import FloatArray

NOISE = 0.2
"""Variance of the Gaussian likelihood."""
SCALE, DF = 0.3, 4.0
"""Of the Student-t likelihood."""
GAUSSIAN = GaussianSettings(variance=NOISE)
STUDENT_T = StudentTSettings(name="student_t", scale=SCALE, degrees_of_freedom=DF)

Batch = tuple[FloatArray, FloatArray, FloatArray]
"""Mean and variance of f, [S, n, Q], and targets [n, Q]."""


def _batch(S: int = 3, n: int = 5, Q: int = 2, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    mean = generator.normal(size=(S, n, Q))
    var = generator.uniform(0.05, 0.4, size=(S, n, Q))
    return mean, var, generator.normal(size=(n, Q))


def _deep_gp(
    likelihood: GaussianSettings | StudentTSettings = GAUSSIAN, Q: int = 2, dtype: Any = "float64"
) -> DeepGP:
    """A small model whose KL is not zero; the tests give predictions of their own."""
    settings = ModelSettings(layers=2, inducing_points=2, likelihood=likelihood, dtype=dtype)
    deep_gp = build_deep_gp(settings, TaskShape(10, 1, Q), seed=4)
    deep_gp.f_layers[-1].q_mu.assign(np.ones((2, Q)))
    return deep_gp


def _sums(
    deep_gp: DeepGP,
    y_std: Iterable[float] = (1.0, 1.0),
    total: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> PredictiveSums:
    return PredictiveSums(deep_gp, np.array(list(y_std)), total)


def _figures(sums: PredictiveSums) -> dict[str, float]:
    return {name: float(value) for name, value in sums.result().items()}


def _add(
    sums: PredictiveSums,
    deep_gp: DeepGP,
    batch: Batch,
    rows: slice = slice(None),
) -> None:
    """Add some consecutive rows of a batch, under the noise of their positions in it."""
    mean, var, Y = batch
    positions = np.arange(len(Y))[rows]
    with deep_gp.noise.at(
        stream=Stream.EVALUATION,
        first=int(positions[0]),
        num_rows=len(positions),
        num_samples=len(mean),
    ):
        sums.update_state(*(tf.constant(part) for part in (mean[:, rows], var[:, rows], Y[rows])))


def _t_around_gaussian(
    function: Callable[[float], float], mean: float, var: float, y: float
) -> float:
    """Integral of function((y - f) / scale) N(f; mean, var) df."""
    std = np.sqrt(var)
    value, _ = integrate.quad(
        lambda z: stats.norm.pdf(z) * function((y - mean - std * z) / SCALE),
        -9,
        9,
        points=[np.clip((y - mean) / std, -8, 8)],
        epsabs=1e-12,
        limit=200,
    )
    return float(value)


# --- density ----------------------------------------------------------------------------------


def test_log_density_is_that_of_scipys_mixture() -> None:
    mean, var, Y = _batch()
    found = mixture_log_density(gpflow.likelihoods.Gaussian(NOISE), mean, var, Y)
    logs = stats.norm.logpdf(Y, mean, np.sqrt(var + NOISE)).sum(axis=-1)  # joint in each sample
    expected = special.logsumexp(logs, axis=0) - np.log(3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    product_of_marginals = np.log(stats.norm.pdf(Y, mean, np.sqrt(var + NOISE)).mean(axis=0)).sum(
        axis=-1
    )
    assert np.all(np.abs(found - product_of_marginals) > 1e-3)


def test_log_density_is_the_log_of_the_mean_and_not_the_mean_of_logs() -> None:
    mean = np.array([-3.0, 3.0])[:, None, None]
    var = np.full((2, 1, 1), 0.3)
    found = float(
        mixture_log_density(gpflow.likelihoods.Gaussian(NOISE), mean, var, np.array([[3.0]]))[0]
    )
    std = np.sqrt(0.3 + NOISE)
    log_of_mean = np.log(0.5 * stats.norm.pdf(0, 0, std) + 0.5 * stats.norm.pdf(6, 0, std))
    mean_of_logs = 0.5 * (stats.norm.logpdf(0, 0, std) + stats.norm.logpdf(6, 0, std))
    assert found == pytest.approx(log_of_mean, rel=1e-12)
    assert found > mean_of_logs + 10


def test_log_density_far_out_does_not_underflow() -> None:
    mean, var = np.zeros((2, 1, 1)), np.full((2, 1, 1), 1.0 - NOISE)
    found = mixture_log_density(gpflow.likelihoods.Gaussian(NOISE), mean, var, np.array([[1e3]]))
    assert float(found[0]) == pytest.approx(stats.norm.logpdf(1e3), rel=1e-12)


def test_student_t_log_density_is_that_of_an_integral_over_f() -> None:
    mean, _, Y = _batch(Q=1)
    var = np.full_like(mean, SCALE**2 / 2)
    deep_gp = _deep_gp(STUDENT_T, Q=1)
    found = predictive_of(deep_gp.likelihood, deep_gp).log_density(mean, var, Y)
    expected = [
        np.log(
            np.mean(
                [
                    _t_around_gaussian(lambda z: stats.t.pdf(z, DF) / SCALE, m, v, y)
                    for m, v in zip(mean[:, row, 0], var[:, row, 0], strict=True)
                ]
            )
        )
        for row, y in enumerate(Y[:, 0])
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)  # nats, of the grid of precisions


@pytest.mark.parametrize("df", [2.1, 4.0, 50.0])
def test_student_t_log_density_holds_in_the_tails(df: float) -> None:
    deep_gp = _deep_gp(StudentTSettings(name="student_t", scale=SCALE, degrees_of_freedom=df), Q=1)
    Y = SCALE * np.array([[0.0], [3.0], [30.0], [300.0]])
    zeros = np.zeros((1, 4, 1))
    found = predictive_of(deep_gp.likelihood, deep_gp).log_density(zeros, zeros, Y)
    np.testing.assert_allclose(found, stats.t.logpdf(Y[:, 0], df, scale=SCALE), atol=1e-4)


# --- cumulative distribution ------------------------------------------------------------------


def test_gaussian_cdf_is_that_of_scipys_mixture() -> None:
    mean, var, Y = _batch()
    deep_gp = _deep_gp()
    found = predictive_of(deep_gp.likelihood, deep_gp).cdf(mean, var, Y)
    expected = stats.norm.cdf(Y, mean, np.sqrt(var + NOISE)).mean(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("var_over_noise", [0.1, 1.0, 4.0, 44.0])
def test_student_t_cdf_is_that_of_an_integral_over_f(var_over_noise: float) -> None:
    mean, _, Y = _batch(S=2, n=6)
    var = np.full_like(mean, var_over_noise * SCALE**2)
    deep_gp = _deep_gp(STUDENT_T)
    found = predictive_of(deep_gp.likelihood, deep_gp).cdf(mean, var, Y)
    assert found.shape == (6, 2)
    for row, output in np.ndindex(6, 2):
        expected = np.mean(
            [
                _t_around_gaussian(
                    lambda z: float(stats.t.cdf(z, DF)),
                    mean[sample, row, output],
                    var[sample, row, output],
                    Y[row, output],
                )
                for sample in range(2)
            ]
        )
        assert float(found[row, output]) == pytest.approx(expected, abs=1e-6)


# --- CRPS -------------------------------------------------------------------------------------


def _integrated_crps(mean: FloatArray, var: FloatArray, y: float) -> float:
    """Integral of (F(z) - [y <= z])^2 dz for one row's mixture."""

    def below(z: float) -> float:
        return float(stats.norm.cdf(z, mean, np.sqrt(var)).mean() ** 2)

    def above(z: float) -> float:
        return float(stats.norm.sf(z, mean, np.sqrt(var)).mean() ** 2)

    left, _ = integrate.quad(below, -30, y, epsabs=1e-11, limit=200)
    right, _ = integrate.quad(above, y, 30, epsabs=1e-11, limit=200)
    return float(left + right)


@pytest.mark.parametrize("S", [1, 2, 5])
def test_mixture_crps_is_the_integral_that_defines_it(S: int) -> None:
    mean, var, Y = _batch(S=S, n=3)
    found = gaussian_mixture_crps(mean, var, Y)
    assert found.shape == (3, 2)
    for row, output in np.ndindex(3, 2):
        expected = _integrated_crps(mean[:, row, output], var[:, row, output], Y[row, output])
        assert float(found[row, output]) == pytest.approx(expected, abs=1e-9)  # of the integral


def _gaussian_crps(mean: Any, std: Any, y: Any) -> Any:
    """Gneiting & Raftery (2007), equation 21."""
    z = (y - mean) / std
    return std * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))


def test_crps_of_one_gaussian_is_its_closed_form() -> None:
    mean, var, Y = _batch(S=1)
    expected = _gaussian_crps(mean[0], np.sqrt(var[0]), Y)
    np.testing.assert_allclose(gaussian_mixture_crps(mean, var, Y), expected, rtol=1e-10)


def test_crps_of_equal_components_is_that_of_one() -> None:
    mean, var, Y = _batch(S=1)
    repeated = gaussian_mixture_crps(np.repeat(mean, 4, axis=0), np.repeat(var, 4, axis=0), Y)
    np.testing.assert_allclose(repeated, gaussian_mixture_crps(mean, var, Y), rtol=1e-12)


def test_gaussian_crps_counts_the_noise() -> None:
    mean, var, Y = _batch(S=1)
    deep_gp = _deep_gp()
    found = predictive_of(deep_gp.likelihood, deep_gp).crps(mean, var, Y)
    np.testing.assert_allclose(
        found, _gaussian_crps(mean[0], np.sqrt(var[0] + NOISE), Y), rtol=1e-10
    )
    assert np.all(np.abs(found - gaussian_mixture_crps(mean, var, Y)) > 1e-3)


@given(
    draws=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30),
    y=st.floats(-1e3, 1e3),
)
def test_sampled_crps_is_its_double_sum(draws: list[float], y: float) -> None:
    x, R = np.array(draws), len(draws)
    among = np.abs(x[:, None] - x).sum() / (2 * R * (R - 1))
    found = sampled_crps(tf.constant(x[:, None, None]), tf.constant([[y]], tf.float64))
    # Sums of up to 900 terms of up to 2000.
    assert float(found[0, 0]) == pytest.approx(np.abs(x - y).mean() - among, abs=1e-9)


def test_sampled_crps_is_unbiased_from_few_draws() -> None:
    R, n, y = 3, 40_000, 0.5
    draws = np.random.default_rng(0).normal(size=(R, n, 1))
    estimates = np.asarray(
        sampled_crps(tf.constant(draws), tf.fill([n, 1], tf.constant(y, tf.float64)))
    )
    standard_error = estimates.std() / np.sqrt(n)
    exact = float(_gaussian_crps(0.0, 1.0, y))
    assert abs(estimates.mean() - exact) < 4 * standard_error
    # The plain estimate divides the double sum by R^2 and misses by E|X - X'| / (2 R).
    assert 1 / np.sqrt(np.pi) / R > 20 * standard_error


def test_sampled_crps_agrees_with_the_mixtures_closed_form() -> None:
    mean, var, Y = _batch(S=4, n=3)
    R = 40_000
    generator = np.random.default_rng(1)
    component = generator.integers(4, size=(R, 1, 1))
    m, v = (
        np.take_along_axis(a, np.broadcast_to(component, (R, 3, 2)), axis=0) for a in (mean, var)
    )
    draws = m + np.sqrt(v) * generator.normal(size=m.shape)
    found = sampled_crps(tf.constant(draws), tf.constant(Y))
    # |x - y| varies by about the draws' spread, 1: four of its standard errors.
    np.testing.assert_allclose(found, gaussian_mixture_crps(mean, var, Y), atol=4 / np.sqrt(R))


# --- sums over rows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("likelihood", "S"),
    [(GAUSSIAN, 3), (STUDENT_T, 100)],  # many S, so that a Student-t's draws are few for each
)
def test_figures_do_not_depend_on_how_rows_are_batched(
    likelihood: GaussianSettings | StudentTSettings, S: int
) -> None:
    n = 8  # the last batch has one row
    batch = _batch(S=S, n=n)
    deep_gp = _deep_gp(likelihood)
    whole, by_seven = _sums(deep_gp), _sums(deep_gp)
    _add(whole, deep_gp, batch)
    for start in range(0, n, 7):
        _add(by_seven, deep_gp, batch, slice(start, start + 7))
    assert _figures(by_seven) == pytest.approx(_figures(whole), rel=1e-12)  # order of sums


def test_figures_count_the_rows_of_all_ranks() -> None:
    batch, deep_gp = _batch(n=9), _deep_gp()
    whole, other = _sums(deep_gp), _sums(deep_gp)
    own = _sums(deep_gp, total=lambda sums: sums + other.weights[0])
    _add(whole, deep_gp, batch)
    _add(own, deep_gp, batch, slice(0, 5))
    _add(other, deep_gp, batch, slice(5, None))
    figures = _figures(whole)
    assert _figures(own) == pytest.approx(figures, rel=1e-12)  # order of sums
    assert _figures(other)["nlpd"] != pytest.approx(figures["nlpd"], rel=1e-3)


def test_reset_forgets_all_rows() -> None:
    deep_gp = _deep_gp()
    sums, fresh = _sums(deep_gp), _sums(deep_gp)
    _add(sums, deep_gp, _batch(seed=1))
    before = _figures(sums)
    sums.reset_state()
    for used in (sums, fresh):
        _add(used, deep_gp, _batch(seed=2))
    after = _figures(sums)
    assert after == _figures(fresh)
    assert all(before[name] != after[name] for name in ("rmse", "nlpd", "crps", "loss"))


def test_figures_in_original_and_standardised_units() -> None:
    mean, var, Y = _batch()
    y_std = np.array([3.0, 0.5])
    deep_gp = _deep_gp()
    sums = _sums(deep_gp, y_std)
    _add(sums, deep_gp, (mean, var, Y))
    found = _figures(sums)

    squared = np.square(mean.mean(axis=0) - Y)
    crps = np.asarray(gaussian_mixture_crps(mean, var + NOISE, Y))
    std = np.sqrt(var + NOISE)
    logs = special.logsumexp(stats.norm.logpdf(Y, mean, std).sum(axis=-1), axis=0) - np.log(3)
    # E log N(y; f, NOISE) = log N(y; mean, NOISE) - var / (2 NOISE), summed over outputs.
    expected_log = stats.norm.logpdf(Y, mean, np.sqrt(NOISE)) - var / (2 * NOISE)
    elbo = expected_log.sum(axis=-1).mean() - float(deep_gp.prior_kl_per_datum())
    log_volume = np.log(3.0 * 0.5)  # densities are in 1 / (units of y)
    by_hand = {
        "loss": -elbo,
        "elbo_per_datum": elbo - log_volume,
        "rmse": np.sqrt((squared * y_std**2).mean()),
        "rmse_standardised": np.sqrt(squared.mean()),
        "nlpd": -logs.mean() + log_volume,
        "nlpd_standardised": -logs.mean(),
        "crps": (crps * y_std).mean(),
        "crps_standardised": crps.mean(),
    }
    for name, value in by_hand.items():
        assert found[name] == pytest.approx(value, rel=1e-10), name
    assert found.keys() == {*by_hand, "coverage_95"}
    assert float(deep_gp.prior_kl_per_datum()) > 0.1


def test_coverage_counts_targets_within_the_central_interval() -> None:
    assert INTERVAL == (0.025, 0.975)
    mean, var = np.zeros((1, 4, 2)), np.full((1, 4, 2), 1 - NOISE)
    # The interval of a standard normal ends at 1.95996: five of eight targets lie in it.
    Y = np.array([[1.959, 1.961], [-1.959, -1.961], [0.0, 5.0], [1.0, -1.0]])
    deep_gp = _deep_gp()
    sums = _sums(deep_gp)
    _add(sums, deep_gp, (mean, var, Y))
    assert _figures(sums)["coverage_95"] == 5 / 8


def test_sums_of_a_float32_model_are_kept_in_float64() -> None:
    batch = _batch(n=50)
    results = []
    for dtype in ("float64", "float32"):
        deep_gp = _deep_gp(dtype=dtype)
        sums = _sums(deep_gp)
        mean, var, Y = (part.astype(dtype) for part in batch)
        _add(sums, deep_gp, (mean, var, Y))
        assert {value.dtype for value in sums.result().values()} == {tf.float64}
        results.append(_figures(sums))
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-5), name  # float32's 1e-7, summed


# --- Student-t --------------------------------------------------------------------------------


def test_student_t_figures_are_near_those_of_brute_force_draws() -> None:
    S, n = 4, 200
    mean, var, Y = _batch(S=S, n=n, Q=1)
    deep_gp = _deep_gp(STUDENT_T, Q=1)
    sums = _sums(deep_gp, [1.0])
    _add(sums, deep_gp, (mean, var, Y))
    found = _figures(sums)
    assert all(np.isfinite(value) for value in found.values())

    generator = np.random.default_rng(3)
    R = 500
    f = mean + np.sqrt(var) * generator.normal(size=(R, S, n, 1))
    draws = (f + SCALE * generator.standard_t(DF, size=f.shape)).reshape(R * S, n, 1)
    crps = np.asarray(sampled_crps(tf.constant(draws), tf.constant(Y)))
    # |x - y| varies by about 1: STUDENT_T_DRAWS of them for each of n rows, four standard errors.
    assert found["crps"] == pytest.approx(crps.mean(), abs=4 / np.sqrt(STUDENT_T_DRAWS * n))
    below = (draws <= Y).mean(axis=0)
    low, high = INTERVAL
    # The shares of 2000 draws move a target or two across the interval's end.
    covered = np.mean((below >= low) & (below <= high))
    assert found["coverage_95"] == pytest.approx(covered, abs=0.015)
    density = stats.t.pdf((Y - f) / SCALE, DF).mean(axis=(0, 1)) / SCALE
    # The relative error of 2000 draws' mean density is about 3%, averaged over n rows.
    assert found["nlpd"] == pytest.approx(-np.log(density).mean(), abs=0.01)


def test_student_t_crps_is_repeatable_and_a_function_of_the_position() -> None:
    batch = [tf.constant(part) for part in _batch(n=6)]
    deep_gp = _deep_gp(STUDENT_T)
    predictive = predictive_of(deep_gp.likelihood, deep_gp)
    found = []
    for first in (0, 0, 1):
        with deep_gp.noise.at(stream=Stream.EVALUATION, first=first, num_rows=6, num_samples=3):
            found.append(np.asarray(predictive.crps(*batch)))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.all(found[0] != found[2])


def test_student_t_draws_share_no_noise_with_the_layers() -> None:
    deep_gp = _deep_gp(STUDENT_T)
    predictive = predictive_of(deep_gp.likelihood, deep_gp)
    asked: list[int] = []

    def noting(draw: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        def note_and_draw(layer: int, **how: Any) -> tf.Tensor:
            asked.append(layer)
            return draw(layer, **how)

        return note_and_draw

    with (
        pytest.MonkeyPatch.context() as patch,
        deep_gp.noise.at(stream=Stream.EVALUATION, first=0, num_rows=5, num_samples=3),
    ):
        for name in ("normal", "gamma"):
            patch.setattr(deep_gp.noise, name, noting(getattr(deep_gp.noise, name)))
        predictive.crps(*(tf.constant(part) for part in _batch()))
    assert len(asked) == len(set(asked)) == 3 * np.ceil(STUDENT_T_DRAWS / 3)
    assert min(asked) == len(deep_gp.f_layers)


def test_a_likelihood_without_figures_is_named() -> None:
    with pytest.raises(TypeError, match="no predictive figures for the likelihood Poisson"):
        predictive_of(gpflow.likelihoods.Poisson(), _deep_gp())
