from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from natdgp.likelihoods.bernoulli import BernoulliLikelihood, BernoulliSettings
from tests.conftest import FloatArray
from tests.unit.likelihoods.oracles import batch, over_gaussian


def _bernoulli() -> BernoulliLikelihood:
    return BernoulliSettings(name="bernoulli").build()


def _classes() -> tuple[FloatArray, FloatArray, FloatArray]:
    mean, var, Y = batch()
    return 2 * mean, var, (Y > 0).astype(float)


def _probability(f: float) -> float:
    """GPflow's link, which keeps 0.001 from 0 and 1."""
    return float(0.001 + 0.998 * special.ndtr(f))


def test_the_link_is_gpflows() -> None:
    f = np.linspace(-10, 10, 41)
    p, _ = _bernoulli().moments_by_sample(f[None, :, None], np.zeros((1, 41, 1)))
    np.testing.assert_allclose(p[0, :, 0], gpflow.likelihoods.utils.inv_probit(f), rtol=1e-12)


@pytest.mark.parametrize("var", [0.0, 0.01, 0.149, 0.151, 1.0, 4.0, 100.0, 1e6])
def test_expected_log_density_is_its_integral(var: float) -> None:
    means = np.array([-30.0, -3.0, -0.7, 0.0, 1.0, 5.0])
    column = np.repeat(means, 2)[None, :, None]
    Y = np.tile([0.0, 1.0], 6)[:, None]
    found = _bernoulli().expected_log_density(column, np.full_like(column, var), Y)[0]
    expected = [
        over_gaussian(
            lambda f, sign=sign: np.log(_probability(sign * f)),  # type: ignore[misc]
            mean,
            max(var, 1e-12),
            range(-8, 9, 2),
        )
        for mean in means
        for sign in (-1, 1)
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


def _value_and_gradients(
    mean: float, var: float, dtype: str = "float64"
) -> tuple[float, float, float]:
    f_mean, f_var = (tf.fill([1, 1, 1], tf.constant(part, dtype)) for part in (mean, var))
    with tf.GradientTape() as tape:
        tape.watch((f_mean, f_var))
        value = _bernoulli().expected_log_density(f_mean, f_var, tf.ones([1, 1], dtype))
    by_mean, by_var = tape.gradient(value, (f_mean, f_var))
    return float(value[0, 0]), float(by_mean[0, 0, 0]), float(by_var[0, 0, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("var", [1e-6, 0.14, 0.16, 50.0])
def test_gradients_are_those_of_differences(dtype: str, var: float) -> None:
    _, by_mean, by_var = _value_and_gradients(-1.3, var, dtype)
    h = 1e-5
    up, down = (_value_and_gradients(-1.3 + step, var)[0] for step in (h, -h))
    assert by_mean == pytest.approx((up - down) / (2 * h), rel=1e-4)
    # Of a forward difference, as no variance lies below 0.
    here, there = (_value_and_gradients(-1.3, var + step)[0] for step in (0, h))
    assert by_var == pytest.approx((there - here) / h, rel=1e-3)
    assert np.all(np.isfinite(_value_and_gradients(-1.3, 0.0, dtype)))  # where f is known


def test_the_class_probability_is_averaged_over_the_mixture() -> None:
    mean, var, Y = _classes()
    likelihood = _bernoulli()
    by_sample = np.vectorize(lambda m, v: over_gaussian(_probability, m, v))(mean, var)
    p, y_var = likelihood.mean_and_variance(mean, var)
    np.testing.assert_allclose(p, by_sample.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(y_var, p * (1 - p), rtol=1e-9)
    joint = np.where(Y == 1, by_sample, 1 - by_sample).prod(axis=-1).mean(axis=0)
    np.testing.assert_allclose(likelihood.log_density(mean, var, Y), np.log(joint), rtol=1e-9)


def test_figures_are_log_loss_accuracy_and_brier_score() -> None:
    mean, var, Y = _classes()
    likelihood = _bernoulli()
    scores = likelihood.row_scores(mean, var, Y)
    means = {name: tf.reduce_mean(score, axis=0) for name, score in scores.items()}
    found = likelihood.figures_from(means, tf.ones(2, tf.float64))
    p = np.asarray(likelihood.mean_and_variance(mean, var)[0])
    assert float(found["accuracy"]) == np.mean((p > 0.5) == (Y == 1))
    assert float(found["brier"]) == pytest.approx(np.mean((p - Y) ** 2))
    assert float(found["nlpd"]) == pytest.approx(-np.mean(likelihood.log_density(mean, var, Y)))
    assert {figure.name for figure in likelihood.figures} == found.keys()


def test_float32_stays_float32_and_agrees() -> None:
    likelihood = _bernoulli()
    exact, single = ([tf.constant(part, d) for part in _classes()] for d in ("float64", "float32"))
    for name in ("expected_log_density", "log_density"):
        found = getattr(likelihood, name)(*single)
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, getattr(likelihood, name)(*exact), atol=1e-5)


def test_targets_must_be_0_or_1() -> None:
    Y = np.array([[0.0, 1.0], [1.0, 2.0], [0.5, np.nan]])
    first, second = BernoulliLikelihood.check_targets(Y, ["sold", "late"])
    assert "'sold' holds 0.5 in row 2, and 1 values" in first
    assert "'late' holds 2 in row 1, and 2 values" in second
    assert "code its two classes as 0 and 1" in second
    assert BernoulliLikelihood.check_targets(Y[:1], ["sold", "late"]) == []


def test_baseline_is_the_base_rate() -> None:
    Y_train, Y_test = np.array([[1.0], [0.0], [0.0], [0.0]]), np.array([[0.0], [1.0]])
    found = BernoulliLikelihood.baseline(Y_train, Y_test)
    assert found["nlpd"] == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2)
    assert found["accuracy"] == 0.5
    assert found["brier"] == pytest.approx((0.25**2 + 0.75**2) / 2)
    never_seen = BernoulliLikelihood.baseline(np.zeros((8, 1)), np.ones((1, 1)))
    assert never_seen["nlpd"] == pytest.approx(np.log(10))


def test_there_are_no_quantiles() -> None:
    assert not BernoulliLikelihood.has_cdf
    mean, var, _ = _classes()
    with pytest.raises(TypeError, match="BernoulliLikelihood has no CDF and no quantiles"):
        _bernoulli().quantiles(tf.constant([0.5], tf.float64), mean, var)
