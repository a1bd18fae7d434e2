from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from natdgp.data.prepare import Rows
from natdgp.data.scaling import Scaling
from natdgp.likelihoods.gaussian import GaussianSettings
from natdgp.likelihoods.registry import build_likelihood
from natdgp.results.baselines import baseline_figures
from tests.conftest import FloatArray

GAUSSIAN = build_likelihood(GaussianSettings())


def _scaling(D: int, y_mean: float, y_std: float) -> Scaling:
    return Scaling(np.zeros(D), np.ones(D), np.array([y_mean]), np.array([y_std]))


def _crps(mean: float, std: float, y: float) -> float:
    """Its definition: the integral of (F(x) - 1{x >= y})^2."""
    below, _ = integrate.quad(lambda x: stats.norm.cdf(x, mean, std) ** 2, mean - 30 * std, y)
    above, _ = integrate.quad(lambda x: stats.norm.sf(x, mean, std) ** 2, y, mean + 30 * std)
    return float(below + above)


def _figures(
    mean: FloatArray,
    std: float,
    Y: FloatArray,
) -> dict[str, float]:
    """Of Gaussian predictions, all in original units."""
    _, high = stats.norm.interval(0.95, mean, std)
    return {
        "rmse": float(np.sqrt(np.mean((Y - mean) ** 2))),
        "nlpd": float(-np.mean(stats.norm.logpdf(Y, mean, std))),
        "crps": float(np.mean([_crps(m, std, y) for m, y in zip(mean, Y, strict=True)])),
        "coverage_95": float(np.mean(np.abs(Y - mean) <= high - mean)),
    }


def test_figures_equal_those_worked_out_in_original_units() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 2))
    y = 40 + 7 * X[:, 0] - 3 * X[:, 1] + 5 * generator.standard_t(3, size=60)
    train, test = slice(0, 40), slice(40, 60)
    scaling = _scaling(2, y[train].mean(), y[train].std())
    rows = [Rows(X[part], scaling.scale_y(y[part, None])) for part in (train, test)]
    figures = baseline_figures(rows[0], rows[1], scaling, GAUSSIAN)
    assert list(figures) == ["predict the mean", "linear regression"]

    expected = _figures(np.full(20, y[train].mean()), float(y[train].std()), y[test])
    # 1e-7: the quadrature of the CRPS; all else is exact to rounding
    assert figures["predict the mean"] == pytest.approx(expected, rel=1e-7)

    fit = np.linalg.solve(
        (A := np.c_[np.ones(40), X[train]]).T @ A,
        A.T @ y[train],
    )
    std = float(np.std(y[train] - A @ fit))
    expected = _figures(np.c_[np.ones(20), X[test]] @ fit, std, y[test])
    assert figures["linear regression"] == pytest.approx(expected, rel=1e-7)
    assert figures["linear regression"]["rmse"] < figures["predict the mean"]["rmse"]


def test_two_targets_have_a_joint_density_and_mean_errors() -> None:
    """Two targets without any relation to X, the second in units 100 times larger."""
    Y = np.array([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    X = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    scaling = Scaling(np.zeros(1), np.ones(1), np.zeros(2), np.array([2.0, 200.0]))
    figures = baseline_figures(Rows(X, Y), Rows(X, Y), scaling, GAUSSIAN)["predict the mean"]
    # every error is one standard deviation: 2 and 200
    assert figures["rmse"] == pytest.approx(np.sqrt((2**2 + 200**2) / 2), rel=1e-12)
    log_density = stats.norm.logpdf(2, 0, 2) + stats.norm.logpdf(200, 0, 200)
    assert figures["nlpd"] == pytest.approx(-log_density, rel=1e-12)
    # 1e-7: the quadrature
    assert figures["crps"] == pytest.approx(_crps(0, 1, 1) * (2 + 200) / 2, rel=1e-7)
    assert figures["coverage_95"] == 1.0


def test_columns_that_say_the_same_do_no_harm() -> None:
    generator = np.random.default_rng(1)
    X = generator.normal(size=(30, 1))
    Y = 2 * X + 0.1 * generator.normal(size=(30, 1))
    scaling = _scaling(2, 0.0, 1.0)
    twice = np.hstack([X, X])
    once = baseline_figures(Rows(X, Y), Rows(X, Y), scaling, GAUSSIAN)["linear regression"]
    both = baseline_figures(Rows(twice, Y), Rows(twice, Y), scaling, GAUSSIAN)["linear regression"]
    assert both == pytest.approx(once, rel=1e-10)


def test_an_exact_fit_has_finite_figures() -> None:
    X = np.array([[-1.0], [1.0]])
    for test in (Rows(X, X), Rows(X, -X)):
        for figures in baseline_figures(Rows(X, X), test, _scaling(1, 0, 1), GAUSSIAN).values():
            assert all(map(np.isfinite, figures.values())), figures
