"""What must hold whatever the code looks like: analytic optima and equalities."""

from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf

from natdgp import NaturalGradient
from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.model_settings import ModelSettings
from natdgp.training.model import DeepGPModel
from tests.conftest import FloatArray

Waves = tuple[FloatArray, FloatArray]


def _one_layer(X: FloatArray, *, trains: bool, gamma: float, rate: float) -> DeepGPModel:
    settings = ModelSettings(layers=1, inducing_points=20, train_inducing_points=trains)
    model = DeepGPModel(
        build_deep_gp(settings, TaskShape(len(X), X.shape[1], 1), seed=3, X=X),
        natgrad_layers=[0],
        num_samples=1,
        evaluation_samples=5,
        y_std=np.ones(1),
    )
    natural = NaturalGradient(tf.Variable(gamma, dtype=tf.float64))
    model.compile(optimizer=[natural, tf.keras.optimizers.Adam(rate)])
    return model


def _batch(
    X: FloatArray, Y: FloatArray, start: int = 0, size: int | None = None
) -> dict[str, tf.Tensor]:
    positions = np.arange(start, start + (size or len(X)))
    rows = positions % len(X)
    return {
        "inputs": tf.constant(X[rows]),
        "targets": tf.constant(Y[rows]),
        "positions": tf.constant(positions),
    }


def _svgp(model: DeepGPModel) -> gpflow.models.SVGP:
    """GPflow's model on the very parameters of a one-layer deep GP."""
    layer = model.deep_gp.f_layers[0]
    return gpflow.models.SVGP(
        layer.kernel.latent_kernels[0],
        model.deep_gp.gpflow_likelihood,
        layer.inducing_variable.inducing_variable,
        q_mu=layer.q_mu.numpy(),
        q_sqrt=layer.q_sqrt.numpy(),
        num_data=model.deep_gp.num_data,
    )


def test_one_natural_gradient_step_of_length_one_reaches_sgpr(waves: Waves) -> None:
    X, Y = waves
    model = _one_layer(X, trains=False, gamma=1.0, rate=0.0)
    layer = model.deep_gp.f_layers[0]
    sgpr = gpflow.models.SGPR(
        (X, Y),
        layer.kernel.latent_kernels[0],
        layer.inducing_variable.inducing_variable,
        noise_variance=float(model.deep_gp.gpflow_likelihood.variance.numpy()),
    )
    best = float(sgpr.elbo())
    before = -float(model.train_step(_batch(X, Y))["loss"]) * len(X)
    after = -float(model.train_step(_batch(X, Y))["loss"]) * len(X)
    assert before < best - 100  # different before
    # Both solve with the same Kuu, jitter included: the rest is rounding.
    assert after == pytest.approx(best, abs=1e-4)


def test_one_layer_trains_as_svgp_by_hand(waves: Waves) -> None:
    X, Y = waves
    model = _one_layer(X, trains=True, gamma=0.3, rate=0.01)
    svgp = gpflow.models.SVGP(
        gpflow.kernels.SquaredExponential(lengthscales=np.full(3, np.sqrt(3.0))),
        gpflow.likelihoods.Gaussian(0.1),
        model.deep_gp.f_layers[0].inducing_variable.inducing_variable.Z.numpy(),
        num_data=len(X),
    )
    natural = gpflow.optimizers.NaturalGradient(0.3)
    adam = tf.keras.optimizers.Adam(0.01)
    q = (svgp.q_mu, svgp.q_sqrt)
    q_vars = [p.unconstrained_variable for p in q]
    others = [v for v in svgp.trainable_variables if all(v is not taken for taken in q_vars)]
    for step in range(10):
        batch = _batch(X, Y, start=50 * step, size=50)
        with tf.GradientTape() as tape:
            loss = -svgp.elbo((batch["inputs"], batch["targets"]))
        gradients = tape.gradient(loss, q_vars + others)
        natural._natgrad_apply_gradients(*gradients[:2], *q)
        per_row = [gradient / len(X) for gradient in gradients[2:]]
        adam.apply_gradients(zip(per_row, others, strict=True))
        trained = float(model.train_step(batch)["loss"])
        assert trained == pytest.approx(float(loss) / len(X), rel=1e-9)
    for ours, theirs in zip(
        (model.deep_gp.f_layers[0].q_mu, model.deep_gp.gpflow_likelihood.variance),
        (svgp.q_mu, svgp.likelihood.variance),
        strict=True,
    ):
        # Ten steps of two programs that sum in different orders.
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-7, atol=1e-9)


def test_one_layer_predicts_as_svgp(waves: Waves) -> None:
    X, Y = waves
    model = _one_layer(X, trains=True, gamma=0.3, rate=0.01)
    for _ in range(3):
        model.train_step(_batch(X, Y))
    model.reset_metrics()
    figures = {k: float(v) for k, v in model.test_step(_batch(X, Y)).items()}
    svgp = _svgp(model)
    assert figures["nlpd"] == pytest.approx(
        -float(tf.reduce_mean(svgp.predict_log_density((X, Y))))
    )
    assert figures["loss"] == pytest.approx(-float(svgp.elbo((X, Y))) / len(X))
