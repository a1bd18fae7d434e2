"""The wrapper for class-based Keras models of GPflux layers."""

from __future__ import annotations

import gpflow
import gpflux
import numpy as np
import pytest
import tensorflow as tf
from gpflux.architectures import Config, build_constant_input_dim_deep_gp

from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.training.wrapper import NatGradWrapper

X = np.random.default_rng(0).uniform(size=(60, 2))
Y = np.sin(6 * X[:, :1])


def _deep_gp(layers: int) -> gpflux.models.DeepGP:
    np.random.seed(0)
    config = Config(
        num_inducing=10, inner_layer_qsqrt_factor=1e-3, likelihood_noise_variance=0.1, whiten=True
    )
    return build_constant_input_dim_deep_gp(X, layers, config)


def _elbo(deep_gp: gpflux.models.DeepGP) -> float:
    return float(deep_gp.elbo((X, Y)))


def _fit(model: NatGradWrapper, epochs: int = 1) -> None:
    model.fit({"inputs": X, "targets": Y}, batch_size=60, epochs=epochs, verbose=0, shuffle=False)


def test_one_step_of_length_1_reaches_the_optimum_of_a_conjugate_model() -> None:
    """GPflux's own steps, along the gradient of the mean over rows, go a 60th of the way."""
    deep_gp = _deep_gp(1)
    model = NatGradWrapper(deep_gp.as_training_model())
    frozen = tf.keras.optimizers.SGD(0.0)
    model.compile(optimizer=frozen, gamma=1.0)
    before = _elbo(deep_gp)
    _fit(model)
    layer = deep_gp.f_layers[0]
    sgpr = gpflow.models.SGPR(
        (X, Y),
        layer.kernel.kernel,
        layer.inducing_variable.inducing_variable,
        noise_variance=0.1,
    )
    optimum = float(sgpr.elbo())
    assert before < optimum - 1
    assert _elbo(deep_gp) == pytest.approx(optimum, rel=1e-6)


def test_two_layers_train_after_keras_made_natgradmodel_functional() -> None:
    deep_gp = _deep_gp(2)
    deep_gp.as_training_model(gpflux.optimization.NatGradModel)  # what spoils GPflux's wrapper
    model = NatGradWrapper(deep_gp.as_training_model())
    model.compile(optimizer=tf.keras.optimizers.Adam(0.01), gamma=0.1)
    before = _elbo(deep_gp)
    _fit(model, epochs=10)
    assert _elbo(deep_gp) > before + 10
    assert [int(optimizer.iterations) for optimizer in model.natgrad_optimizers] == [10, 10]


def test_only_the_chosen_layers_are_stepped() -> None:
    deep_gp = _deep_gp(2)
    last = deep_gp.f_layers[-1]
    model = NatGradWrapper(deep_gp.as_training_model(), natgrad_layers=[last])
    model.compile(optimizer="sgd", gamma=0.1)
    model.optimizer.learning_rate.assign(0.0)
    first = deep_gp.f_layers[0].q_sqrt.numpy()
    _fit(model)
    np.testing.assert_array_equal(deep_gp.f_layers[0].q_sqrt.numpy(), first)
    assert np.any(last.q_mu.numpy() != 0)


@pytest.mark.parametrize(
    ("natural", "named"),
    [
        ([], "none"),
        ([gpflow.optimizers.NaturalGradient(0.1)], "NaturalGradient"),
        ([NaturalGradient(0.1)], "NaturalGradient"),
    ],
)
def test_a_wrong_list_of_optimizers_is_refused(natural: list[object], named: str) -> None:
    model = NatGradWrapper(_deep_gp(2).as_training_model())
    with pytest.raises(TypeError, match=f"before its last: {named}; give one natdgp.Nat.* the 2 "):
        model.compile(optimizer=[*natural, tf.keras.optimizers.Adam()])
