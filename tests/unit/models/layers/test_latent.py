"""Latent variables of rows: equal to GPflux's on the same draws, and functions of positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpflow
import gpflux
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.deep_gp import DeepGP
from natdgp.models.encoders import MLPEncoder, RowEncoder
from natdgp.models.layers.base import Observations
from natdgp.models.layers.latent import LatentVariableLayer, from_normal
from natdgp.models.model_settings import ModelSettings
from natdgp.models.noise import SamplingNoise, Stream
from tests.conftest import FloatArray

N, D, W = 6, 2, 3
tfd = tfp.distributions


def _prior() -> Any:
    return tfd.MultivariateNormalDiag(np.zeros(W), np.ones(W))


def _rows() -> tuple[FloatArray, FloatArray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(N, D)), generator.normal(size=(N, 1))


def _deep_gp(layers: Any = ("latent", "gp"), **settings: Any) -> DeepGP:
    model = ModelSettings(layers=tuple(layers), inducing_points=4, **settings)
    return build_deep_gp(model, TaskShape(N, D, 1), seed=1, X=_rows()[0])


def test_the_layer_equals_gpfluxs_on_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y = _rows()
    encoder = MLPEncoder(D + 1, W, (5,), seed=0)
    ours, theirs = (
        kind(_prior(), encoder) for kind in (LatentVariableLayer, gpflux.layers.LatentVariableLayer)
    )
    normal = tf.constant(np.random.default_rng(1).normal(size=(1, N, W)))
    monkeypatch.setattr(
        tfd.MultivariateNormalDiag,
        "sample",
        lambda self, *args, **kwargs: self.mean() + self.stddev() * normal[0],
    )

    class Draws:
        def normal(self, layer: int, width: int, dtype: tf.DType) -> tf.Tensor:
            return normal

    def of_ours() -> tuple[tf.Tensor, tf.Tensor]:
        passed = ours.propagate(X[None], None, Draws(), 0, Observations(X, Y))
        assert passed.local_kl is not None
        return passed.F[0], tf.reduce_mean(passed.local_kl)

    def of_theirs() -> tuple[tf.Tensor, tf.Tensor]:
        return theirs(X, observations=[X, Y], training=True), theirs.losses[0]

    def with_gradients(call: Callable[[], tuple[tf.Tensor, tf.Tensor]]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            F, kl = call()
            both = tf.reduce_sum(F**2) + kl
        return [F, kl, *tape.gradient(both, encoder.trainable_variables)]

    for one, other in zip(with_gradients(of_ours), with_gradients(of_theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
    passed = ours.propagate(X[None], None, Draws(), 0)
    np.testing.assert_allclose(passed.F[0], theirs(X), rtol=1e-12)
    assert passed.local_kl is None


def test_gpfluxs_layers_work_in_this_model_and_share_their_parameters() -> None:
    own = _deep_gp()
    latent, gp = own.f_layers
    theirs = gpflux.layers.GPLayer(
        gp.kernel, gp.inducing_variable, N, gp.mean_function, num_latent_gps=1, verbose=False
    )
    theirs.q_mu, theirs.q_sqrt = gp.q_mu, gp.q_sqrt
    layers = [gpflux.layers.LatentVariableLayer(latent.prior, latent.encoder), theirs]
    theirs_in_ours = DeepGP(layers, own.likelihood, num_data=N, seed=1)
    X, Y = _rows()
    bounds = [model.elbo(X, Y, tf.range(N), 5) for model in (own, theirs_in_ours)]
    np.testing.assert_array_equal(*bounds)
    assert theirs_in_ours.f_layers[1].q_mu is theirs.q_mu
    with pytest.raises(TypeError, match="Dense is no layer of a deep GP"):
        DeepGP([tf.keras.layers.Dense(1), gp], own.likelihood, num_data=N, seed=1)
    with pytest.raises(ValueError, match="the last layer is a LatentVariableLayer"):
        DeepGP([latent], own.likelihood, num_data=N, seed=1)


def test_the_layer_works_in_gpfluxs_model() -> None:
    latent, gp = _deep_gp().f_layers
    theirs = gpflux.models.DeepGP(
        [latent, gp], gpflow.likelihoods.Gaussian(0.1), input_dim=D, target_dim=1, num_data=N
    )
    X, Y = _rows()
    model = theirs.as_training_model()
    model.compile(tf.keras.optimizers.Adam(0.01))
    losses = model.fit({"inputs": X, "targets": Y}, epochs=3, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))


def test_a_row_has_the_same_latent_variables_in_any_batch() -> None:
    deep_gp = _deep_gp(["gp", "latent", "gp"])
    X, Y = _rows()
    draw = [deep_gp.noise.at(Stream.TRAINING, tf.range(*ends), 4) for ends in ((0, 6), (2, 6))]
    whole = deep_gp.row_bounds(X, Y, draw[0])
    part = deep_gp.row_bounds(X[2:], Y[2:], draw[1])
    np.testing.assert_allclose(whole[:, 2:], part, rtol=1e-12)
    means = [deep_gp.predictive_marginals(rows, 8)[0] for rows in (X, X[2:])]
    np.testing.assert_allclose(means[0][:, 2:], means[1], rtol=1e-12)


def test_parameters_of_rows_follow_the_rows_through_any_order() -> None:
    deep_gp = _deep_gp([{"latent": {"encoder": "rows"}}, "gp"])
    encoder = deep_gp.f_layers[0].encoder
    encoder.means.assign(1.0 + np.arange(N)[:, None])
    order = np.array([4, 0, 5, 1])
    X, Y = _rows()
    mean, _ = encoder(tf.constant(order))
    np.testing.assert_array_equal(mean[:, 0], 1 + order)
    with tf.GradientTape() as tape:
        loss = -deep_gp.elbo(X[order], Y[order], tf.range(4), 1, rows=tf.constant(order))
    gradient = tf.convert_to_tensor(tape.gradient(loss, encoder.means.unconstrained_variable))
    np.testing.assert_array_equal(np.flatnonzero(gradient), np.sort(order))
    with pytest.raises(ValueError, match="does not say which rows it holds"):
        deep_gp.elbo(X, Y, tf.range(N), 1)


def test_gpfluxs_parameters_of_rows_do_not_follow_them() -> None:
    """What :class:`RowEncoder` is there for: shuffled rows get each other's, batches fail."""
    stock = gpflux.encoders.DirectlyParameterizedNormalDiag(N, W, means=np.ones((N, W)))
    X, _ = _rows()
    shuffled = X[::-1].copy()
    np.testing.assert_array_equal(stock(X)[0], stock(shuffled)[0])
    with pytest.raises(ValueError, match="Specified by tensor"):
        stock(X[:3])


@pytest.mark.parametrize(
    ("distribution", "quantile_of_84"),
    [
        (tfd.Normal([0.0, 1.0], [1.0, 2.0]), [1.0, 3.0]),
        (tfd.MultivariateNormalDiag([0.0, 1.0], [1.0, 2.0]), [1.0, 3.0]),
        (tfd.Independent(tfd.Normal([0.0, 1.0], [1.0, 2.0]), 1), [1.0, 3.0]),
        (tfd.LogNormal([0.0, 0.0], [1.0, 2.0]), [np.e, np.e**2]),
    ],
)
def test_draws_are_quantiles_of_normal_numbers(distribution: Any, quantile_of_84: Any) -> None:
    drawn = from_normal(distribution, tf.ones([1, 1, 2]))
    np.testing.assert_allclose(drawn[0, 0], quantile_of_84, rtol=1e-4)


def test_without_a_formula_the_divergence_is_estimated_by_samples() -> None:
    layer = LatentVariableLayer(tfd.Logistic(np.zeros(1), np.ones(1)), RowEncoder(1, 1, seed=0))
    posterior = tfd.Logistic([[0.7]], np.array([[0.5]]))
    normal = SamplingNoise(0).shared(Stream.EVALUATION, 4096).normal(0, 1, tf.float64)
    estimate = tf.reduce_mean(layer._local_kls(posterior, from_normal(posterior, normal)))
    grid = np.linspace(-25, 25, 200_001)[:, None]
    log_q, log_p = posterior.log_prob(grid), layer.prior.log_prob(grid)
    exact = np.sum(np.exp(log_q) * (log_q - log_p)) * (grid[1, 0] - grid[0, 0])
    np.testing.assert_allclose(estimate, exact, rtol=2e-3)


def test_the_bound_is_no_more_than_the_evidence() -> None:
    """Against log p(y) by 16,384 samples of the prior, with q(u) fixed and certain."""
    deep_gp = _deep_gp([{"latent": {"encoder": [8]}}, "gp"])
    X, Y = _rows()
    bound = tf.reduce_mean(
        deep_gp.row_bounds(X, Y, deep_gp.noise.shared(Stream.EVALUATION, 2048)), axis=0
    )
    mean, var = deep_gp.predictive_marginals(X, 1 << 14)
    evidence = deep_gp.likelihood.log_density(mean, var, Y)
    assert np.all(bound <= evidence + 1e-3)


@pytest.mark.parametrize(
    ("prior", "error", "message"),
    [
        ("normal", TypeError, "prior is a str"),
        (tfd.Normal(0.0, 1.0), ValueError, "give a vector of W numbers"),
        (tfd.Normal(np.zeros((2, 2)), 1.0), ValueError, r"prior has the shape \(2, 2\)"),
    ],
)
def test_a_prior_that_cannot_be_is_refused(prior: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        LatentVariableLayer(prior, RowEncoder(N, 1, seed=0))


def test_draws_of_unknown_quantiles_are_refused() -> None:
    with pytest.raises(ValueError, match="draws of VonMises are not a function"):
        from_normal(tfd.VonMises([0.0], [1.0]), tf.zeros([1, 1, 1]))
