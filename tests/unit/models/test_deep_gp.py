from __future__ import annotations

from typing import Any

import gpflow
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.deep_gp import DeepGP
from natdgp.models.model_settings import ModelSettings
from natdgp.models.noise import Draws, Stream
from tests.conftest import FloatArray

N, n, FIRST = 50, 5, 3
POSITIONS = tf.range(FIRST, FIRST + n, dtype=tf.int64)


def _rows(num_rows: int = N) -> FloatArray:
    return np.random.default_rng(0).normal(size=(num_rows, 3))


@pytest.fixture
def X() -> tf.Tensor:
    return tf.constant(_rows()[:n])


@pytest.fixture
def Y() -> tf.Tensor:
    return tf.constant(np.random.default_rng(2).normal(size=(n, 2)))


def _build(layers: int, output_dim: int = 2) -> DeepGP:
    """A deep GP whose every q(u) is away from the prior."""
    deep_gp = build_deep_gp(
        ModelSettings(layers=layers, inducing_points=6, hidden_width=4),
        TaskShape(N, 3, output_dim),
        seed=7,
        X=_rows(),
    )
    generator = np.random.default_rng(1)
    for layer in deep_gp.f_layers:
        layer.q_mu.assign(generator.normal(size=layer.q_mu.shape))
        layer.q_sqrt.assign(np.tril(generator.normal(size=layer.q_sqrt.shape)))
    return deep_gp


def _at(deep_gp: DeepGP, S: int) -> Draws:
    return deep_gp.noise.at(Stream.TRAINING, POSITIONS, S)


def _by_hand(deep_gp: DeepGP, X: tf.Tensor, S: int) -> tuple[FloatArray, FloatArray]:
    """Each sample on its own, from layer to layer; mean and variance of f, [S, n, Q]."""
    means, variances = [], []
    for sample in range(S):
        inputs = X
        for index, layer in enumerate(deep_gp.f_layers[:-1]):
            mean, var = layer.predict(inputs)
            noise = _at(deep_gp, S).normal(index, mean.shape[-1], mean.dtype)[sample]
            inputs = mean + tf.sqrt(var) * noise
        mean, var = deep_gp.f_layers[-1].predict(inputs)
        means.append(mean)
        variances.append(var)
    return np.asarray(means), np.asarray(variances)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("S", [1, 3])
def test_samples_equal_a_loop_over_samples_with_the_same_noise(
    X: tf.Tensor, layers: int, S: int
) -> None:
    deep_gp = _build(layers)
    mean, var = deep_gp.f_marginals(X, _at(deep_gp, S))
    expected_mean, expected_var = _by_hand(deep_gp, X, S)
    # The same operations on S * n rows at once and on n rows: rounding.
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(var, expected_var, rtol=1e-10, atol=1e-12)
    if S > 1:  # the samples can be told apart
        assert np.min(np.abs(mean[0] - mean[1])) > 1e-6


def test_the_first_layer_is_evaluated_once_for_all_samples(
    X: tf.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep_gp = _build(3)
    seen: list[int] = []
    for layer in deep_gp.f_layers:

        def marginals(F: tf.Tensor, q: Any, marginals: Any = layer.marginals) -> Any:
            seen.append(len(F))
            return marginals(F, q)

        monkeypatch.setattr(layer, "marginals", marginals)
    deep_gp.f_marginals(X, _at(deep_gp, 4))
    assert seen == [n, 4 * n, 4 * n]


# --- the bound --------------------------------------------------------------------------------


def _kl(deep_gp: DeepGP) -> list[float]:
    prior_kl = gpflow.kullback_leiblers.prior_kl
    return [
        float(prior_kl(one.inducing_variable, one.kernel, one.q_mu, one.q_sqrt, whiten=True))
        for one in deep_gp.f_layers
    ]


@pytest.mark.parametrize(("layers", "S"), [(1, 1), (2, 1), (3, 4)])
def test_the_bound_is_its_equation(X: tf.Tensor, Y: tf.Tensor, layers: int, S: int) -> None:
    deep_gp = _build(layers)
    mean, var = _by_hand(deep_gp, X, S)
    expected = deep_gp.gpflow_likelihood.variational_expectations(None, mean, var, Y[None])
    kl = _kl(deep_gp)
    assert all(one > 1 for one in kl)
    bound = np.mean(expected) - sum(kl) / N
    assert float(deep_gp.elbo(X, Y, POSITIONS, S)) == pytest.approx(bound, rel=1e-11)
    assert float(deep_gp.kl()) == pytest.approx(sum(kl), rel=1e-12)


def test_priors_of_parameters_are_part_of_the_bound(X: tf.Tensor, Y: tf.Tensor) -> None:
    deep_gp = _build(2)
    before = float(deep_gp.elbo(X, Y, POSITIONS, 1))
    assert float(deep_gp.log_prior()) == 0
    prior, density = tfp.distributions.LogNormal(np.float64(0.5), np.float64(1.0)), 0.0
    lengthscales = deep_gp.f_layers[0].kernel.kernel.lengthscales
    for parameter in (lengthscales, deep_gp.gpflow_likelihood.variance):
        parameter.prior = prior
        density += float(np.sum(prior.log_prob(parameter)))
    assert float(deep_gp.log_prior()) == pytest.approx(density, rel=1e-12)
    after = float(deep_gp.elbo(X, Y, POSITIONS, 1))
    assert after - before == pytest.approx(density / N, rel=1e-9)  # a difference of numbers of 1


# --- prediction -------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "drawn"), [(1, 1), (2, 4), (3, 4)])
def test_predictions_are_S_by_n_by_Q(X: tf.Tensor, layers: int, drawn: int) -> None:
    mean, var = _build(layers).predictive_marginals(X, 4)
    assert mean.shape == var.shape == (drawn, n, 2)
    assert np.all(var > 0)


def test_a_prediction_is_a_function_of_the_row_alone(X: tf.Tensor) -> None:
    deep_gp = _build(3)
    row = X[:1]
    alone = deep_gp.predictive_marginals(row, 4)
    for count in (10, 1030):
        others = tf.constant(_rows(count - 1))
        among = deep_gp.predictive_marginals(tf.concat([others, row], axis=0), 4)
        for one, other in zip(alone, among, strict=True):
            # Products of matrices of another size sum in another order.
            np.testing.assert_allclose(one[:, 0], other[:, -1], rtol=1e-10, atol=1e-12)


def test_one_layer_predicts_as_gpflows_svgp(X: tf.Tensor) -> None:
    deep_gp = _build(1)
    layer = deep_gp.f_layers[0]
    svgp = gpflow.models.SVGP(
        layer.kernel,
        deep_gp.gpflow_likelihood,
        layer.inducing_variable,
        num_latent_gps=2,
        q_mu=layer.q_mu.numpy(),
        q_sqrt=layer.q_sqrt.numpy(),
        num_data=N,
    )
    for ours, theirs in zip(deep_gp.predictive_marginals(X, 1), svgp.predict_f(X), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-10)  # rounding
    assert float(deep_gp.kl()) == pytest.approx(float(svgp.prior_kl()), rel=1e-12)
