from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from natdgp.likelihoods.base import Likelihood
from natdgp.likelihoods.gaussian import GaussianLikelihood, GaussianSettings
from natdgp.likelihoods.regression import INTERVAL, gaussian_figures
from natdgp.likelihoods.student_t import StudentTSettings
from tests.unit.likelihoods.oracles import Batch, batch

NOISE = 0.2
BOTH = [GaussianSettings(variance=NOISE), StudentTSettings(name="student_t")]


def _figures(likelihood: Likelihood, given: Batch, y_std: tuple[float, ...]) -> dict[str, float]:
    scores = likelihood.row_scores(*given)
    means = {name: tf.reduce_mean(score, axis=0) for name, score in scores.items()}
    found = likelihood.figures_from(means, tf.constant(y_std, tf.float64))
    assert found.keys() == {figure.name for figure in likelihood.figures}
    return {name: float(value) for name, value in found.items()}


def test_figures_in_original_and_standardised_units() -> None:
    mean, var, Y = batch()
    y_std = np.array([3.0, 0.5])
    likelihood = GaussianSettings(variance=NOISE).build()
    found = _figures(likelihood, (mean, var, Y), (3.0, 0.5))
    squared = np.square(mean.mean(axis=0) - Y)
    crps = np.asarray(likelihood.crps(mean, var, Y))
    logs = stats.norm.logpdf(Y, mean, np.sqrt(var + NOISE)).sum(axis=-1)
    nlpd = -(special.logsumexp(logs, axis=0) - np.log(3)).mean()
    by_hand = {
        "rmse": np.sqrt((squared * y_std**2).mean()),
        "rmse_standardised": np.sqrt(squared.mean()),
        "nlpd": nlpd + np.log(3.0 * 0.5),  # densities are in 1 / (units of y)
        "nlpd_standardised": nlpd,
        "crps": (crps * y_std).mean(),
        "crps_standardised": crps.mean(),
    }
    assert {name: found[name] for name in by_hand} == pytest.approx(by_hand, rel=1e-10)


def test_coverage_counts_targets_within_the_central_interval() -> None:
    assert INTERVAL == (0.025, 0.975)
    mean, var = np.zeros((1, 4, 2)), np.full((1, 4, 2), 1 - NOISE)
    # The interval of a standard normal ends at 1.95996: five of eight targets lie in it.
    Y = np.array([[1.959, 1.961], [-1.959, -1.961], [0.0, 5.0], [1.0, -1.0]])
    likelihood = GaussianSettings(variance=NOISE).build()
    assert _figures(likelihood, (mean, var, Y), (1.0, 1.0))["coverage_95"] == 5 / 8


@pytest.mark.parametrize("settings", BOTH)
def test_a_rows_scores_do_not_depend_on_its_batch(
    settings: GaussianSettings | StudentTSettings,
) -> None:
    mean, var, Y = batch(n=7)
    likelihood = settings.build()
    whole = likelihood.row_scores(mean, var, Y)
    one = likelihood.row_scores(mean[:, 3:4], var[:, 3:4], Y[3:4])
    for name, score in whole.items():
        np.testing.assert_allclose(one[name][0], score[3], rtol=1e-12)


@pytest.mark.parametrize("settings", BOTH)
def test_float32_stays_float32_and_agrees(settings: GaussianSettings | StudentTSettings) -> None:
    likelihood = settings.build()
    exact, single = ([tf.constant(part, d) for part in batch(n=50)] for d in ("float64", "float32"))
    names = ("expected_log_density", "log_density", "cdf", "crps")
    for name in names:
        found = getattr(likelihood, name)(*single)
        assert found.dtype == tf.float32
        # Sums over samples and precisions of numbers of size 10 that are known to 1e-7.
        np.testing.assert_allclose(found, getattr(likelihood, name)(*exact), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", BOTH)
def test_crps_of_a_large_batch_fits_in_memory(
    settings: GaussianSettings | StudentTSettings,
) -> None:
    mean, var, Y = batch(S=20, n=4096, Q=1)
    found = np.asarray(settings.build().crps(mean, var, Y))
    assert np.all(np.isfinite(found))
    assert np.all(found > 0)


def test_baseline_predicts_the_mean_with_the_spread_of_the_training_targets() -> None:
    generator = np.random.default_rng(0)
    Y_train, Y_test = generator.normal(3, 2, size=(50, 2)), generator.normal(3, 2, size=(20, 2))
    found = GaussianLikelihood.baseline(Y_train, Y_test)
    mean, std = Y_train.mean(axis=0), Y_train.std(axis=0)
    logs = stats.norm.logpdf(Y_test, mean, std).sum(axis=1)
    assert found["nlpd"] == pytest.approx(-logs.mean())
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((Y_test - mean) ** 2)))
    likelihood = GaussianLikelihood(GaussianSettings(variance=1.0).build().gpflow)
    scaled = np.zeros((1, 20, 2)), np.zeros((1, 20, 2)), (Y_test - mean) / std
    same = _figures(likelihood, scaled, tuple(std))
    assert found == pytest.approx({name: same[name] for name in found}, rel=1e-12)


def test_an_exact_prediction_has_finite_figures() -> None:
    found = gaussian_figures(np.ones(1), np.zeros(1), np.ones((3, 1)))
    assert all(np.isfinite(value) for value in found.values())
    assert found["rmse"] == 0


def test_one_figure_has_no_better_direction() -> None:
    assert [f.name for f in GaussianLikelihood.figures if not f.judges] == ["coverage_95"]
