"""Whole models, side by side with GPflow's optimizer: where that crashes, and in GPflux's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gpflow
import gpflux
import numpy as np
import pytest
import tensorflow as tf
from gpflow.kernels import Matern52, SquaredExponential
from gpflow.likelihoods import Gaussian, StudentT
from gpflow.models import SVGP
from gpflux.architectures import Config, build_constant_input_dim_deep_gp

from natdgp.natgrad.optimizer import NaturalGradient
from tests.unit.natgrad.problems import FloatArray, in_graph

Loss = Callable[[], tf.Tensor]
Variational = list[tuple[gpflow.Parameter, gpflow.Parameter]]
Task = Callable[[], tuple[Loss, Variational]]


def _wave() -> tuple[FloatArray, FloatArray]:
    X = np.sort(np.random.default_rng(0).uniform(-3, 3, size=(100, 1)), axis=0)
    return X, np.sin(2 * X)


def _wave_with_outliers() -> tuple[FloatArray, FloatArray]:
    generator = np.random.default_rng(0)
    X, Y = _wave()
    Y += 0.1 * generator.normal(size=Y.shape)
    Y[::10] += generator.choice([-8, 8], size=(10, 1))
    return X, Y


def student_t() -> tuple[Loss, Variational]:
    """Not log-concave: the curvature of an outlier's density is of the other sign."""
    X, Y = _wave_with_outliers()
    model = SVGP(Matern52(lengthscales=0.5), StudentT(scale=0.1, df=3.0), X[::5])
    return model.training_loss_closure((X, Y), compile=False), [(model.q_mu, model.q_sqrt)]


def float32() -> tuple[Loss, Variational]:
    """20,000 rows of little noise and a hundred inducing points, in float32."""
    X, Y = (np.tile(array, (200, 1)).astype(np.float32) for array in _wave())
    Z = np.linspace(-3, 3, 100, dtype=np.float32)[:, None]
    model = SVGP(SquaredExponential(), Gaussian(0.01), Z)
    model.likelihood.variance.assign(1e-3)
    return model.training_loss_closure((X, Y), compile=False), [(model.q_mu, model.q_sqrt)]


def _two_layers(likelihood: gpflow.likelihoods.Likelihood) -> tuple[Loss, Variational]:
    X, Y = _wave_with_outliers()
    np.random.seed(0)
    config = Config(
        num_inducing=20, inner_layer_qsqrt_factor=0.1, likelihood_noise_variance=0.01, whiten=True
    )
    layers = build_constant_input_dim_deep_gp(X, 2, config).f_layers
    model = gpflux.models.DeepGP(layers, likelihood, num_data=len(X))
    return lambda: -model.elbo((X, Y)), [(layer.q_mu, layer.q_sqrt) for layer in layers]


def two_layers_student_t() -> tuple[Loss, Variational]:
    return _two_layers(StudentT(scale=0.1, df=3.0))


def two_layers_gaussian() -> tuple[Loss, Variational]:
    """An inner layer's loss is not convex even under a Gaussian likelihood."""
    return _two_layers(Gaussian(0.01))


def _train(
    task: Task, optimizer: gpflow.optimizers.NaturalGradient, steps: int
) -> tuple[float, float, Variational]:
    tf.random.set_seed(0)
    loss, variational = task()
    before = float(loss())
    step = in_graph(lambda: optimizer.minimize(loss, variational))
    for _ in range(steps):
        step()
    return before, float(loss()), variational


@pytest.mark.parametrize(
    ("task", "gamma", "options", "enough"),
    [
        pytest.param(student_t, 1.0, {}, 128.0, id="student_t"),
        pytest.param(student_t, 0.5, {}, 128.0, id="student_t, half"),
        pytest.param(student_t, 1.0, {"max_kl": 10.0}, 128.0, id="student_t, max_kl"),
        pytest.param(student_t, 0.5, {"max_kl": 10.0}, 128.0, id="student_t, half, max_kl"),
        pytest.param(float32, 1.0, {}, -50_000.0, id="float32"),
        pytest.param(float32, 0.1, {}, -50_000.0, id="float32, a tenth"),
        pytest.param(two_layers_student_t, 1.0, {}, 390.0, id="two layers, student_t"),
        pytest.param(two_layers_gaussian, 0.5, {}, 29_300.0, id="two layers, gaussian"),
        pytest.param(two_layers_gaussian, 1.0, {}, 29_300.0, id="two layers, gaussian, one"),
    ],
)
def test_gpflow_crashes_and_this_optimizer_goes_on(
    task: Task, gamma: float, options: dict[str, Any], enough: float
) -> None:
    defaults = gpflow.config.config()
    if task is float32:
        defaults = dataclasses.replace(defaults, float=np.float32, jitter=1e-4)
    with gpflow.config.as_context(defaults):
        with pytest.raises(tf.errors.InvalidArgumentError, match="NaN or Inf"):
            _train(task, gpflow.optimizers.NaturalGradient(gamma), 40)
        optimizer = NaturalGradient(gamma, **options)
        before, after, variational = _train(task, optimizer, 40)
    assert before > enough + 100
    assert after < enough
    assert int(optimizer.iterations) == 40
    assert int(optimizer.counts["refused"]) == 0
    for q_mu, q_sqrt in variational:
        assert np.all(np.isfinite(q_mu.numpy()))
        assert np.all(np.diagonal(q_sqrt.numpy(), axis1=1, axis2=2) > 0)


def _in_gpflux(layers: int, *natural: gpflow.optimizers.NaturalGradient) -> list[float]:
    """The losses of five epochs of GPflux's own training."""
    np.random.seed(0)  # k-means, inside GPflux
    tf.random.set_seed(0)
    X = np.random.default_rng(0).uniform(size=(60, 2))
    config = Config(
        num_inducing=8, inner_layer_qsqrt_factor=0.1, likelihood_noise_variance=0.1, whiten=True
    )
    deep_gp = build_constant_input_dim_deep_gp(X, layers, config)
    model = deep_gp.as_training_model(gpflux.optimization.NatGradModel)
    model.natgrad_layers = True
    model.compile(optimizer=[*natural, tf.keras.optimizers.Adam(0.01)])
    data = {"inputs": X, "targets": np.sin(6 * X[:, :1])}
    fit = model.fit(data, batch_size=60, epochs=5, verbose=0, shuffle=False)
    return list(fit.history["loss"])


def test_gpfluxs_model_trains_with_it_as_with_gpflows() -> None:
    """One layer: the loss of more is sampled, with seeds that depend on the graph."""
    ours, theirs = (
        _in_gpflux(1, kind(0.5)) for kind in (NaturalGradient, gpflow.optimizers.NaturalGradient)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # Keras reports losses in float32
    assert ours[-1] < ours[0] - 1


def test_gpfluxs_model_trains_two_layers_with_it() -> None:
    natural = [NaturalGradient(0.1), NaturalGradient(0.1)]
    losses = _in_gpflux(2, *natural)
    assert losses[-1] < losses[0] - 1
    for optimizer, latents in zip(natural, (2, 1), strict=True):
        assert int(optimizer.iterations) == 5
        assert int(optimizer.counts["taken"]) == 5 * latents
