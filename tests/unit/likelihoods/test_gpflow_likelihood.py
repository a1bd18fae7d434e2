from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from natdgp.likelihoods.gpflow_likelihood import GPflowLikelihood
from natdgp.likelihoods.registry import likelihood_of
from tests.unit.likelihoods.oracles import batch


def test_a_poisson_is_computed_as_gpflow_does() -> None:
    mean, var, _ = batch()
    Y = np.arange(10.0).reshape(5, 2)
    given = tf.constant(mean), tf.constant(var), tf.constant(Y)
    samples = list(zip(mean, var, strict=True))
    poisson = gpflow.likelihoods.Poisson()
    likelihood = likelihood_of(poisson)
    assert type(likelihood) is GPflowLikelihood
    expected = [poisson.variational_expectations(None, m, v, Y) for m, v in samples]
    np.testing.assert_allclose(likelihood.expected_log_density(*given), expected)
    logs = [poisson.predict_log_density(None, m, v, Y) for m, v in samples]
    found = likelihood.log_density(*given)
    np.testing.assert_allclose(found, special.logsumexp(logs, axis=0) - np.log(3))

    scores = likelihood.row_scores(*given)
    means = {name: tf.reduce_mean(score, axis=0) for name, score in scores.items()}
    figures = likelihood.figures_from(means, tf.ones(2, tf.float64))
    rates = np.exp(mean + var / 2).mean(axis=0)
    assert float(figures["rmse"]) == pytest.approx(np.sqrt(np.mean((rates - Y) ** 2)), rel=1e-6)
    assert float(figures["nlpd"]) == pytest.approx(-np.mean(found))


def test_several_latent_gps_for_one_target() -> None:
    likelihood = likelihood_of(gpflow.likelihoods.Softmax(3))
    assert likelihood.num_latent_gps(1) == 3
    assert likelihood_of(gpflow.likelihoods.Poisson()).num_latent_gps(2) == 2


def test_float32_whatever_gpflows_default_is() -> None:
    mean, var, Y = (tf.constant(np.abs(part), tf.float32) for part in batch())
    found = likelihood_of(gpflow.likelihoods.Exponential()).log_density(mean, var, Y)
    assert found.dtype == tf.float32
    assert np.all(np.isfinite(found))
