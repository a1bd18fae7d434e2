"""GPflux's surface: models of GPflux layers, put together and trained as its documents say."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpflow
import gpflux
import numpy as np
import pytest
import tensorflow as tf
from gpflux.architectures import Config, build_constant_input_dim_deep_gp

from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.training.natgrad_model import NatGradModel, NatGradWrapper
from tests.conftest import FloatArray
from tests.unit.training.small_models import batch_of, small_model

X = np.random.default_rng(0).uniform(size=(60, 2))
Y = np.sin(6 * X[:, :1])
DATA = {"inputs": X, "targets": Y}


@pytest.fixture(autouse=True)
def _keras_in_float64() -> Any:
    """As GPflux's documents ask for."""
    tf.keras.backend.set_floatx("float64")
    yield
    tf.keras.backend.set_floatx("float32")


def _deep_gp(layers: int = 2) -> gpflux.models.DeepGP:
    np.random.seed(0)
    config = Config(
        num_inducing=10, inner_layer_qsqrt_factor=1e-3, likelihood_noise_variance=0.1, whiten=True
    )
    return build_constant_input_dim_deep_gp(X, layers, config)


def _wrapped(deep_gp: gpflux.models.DeepGP, **others: Any) -> NatGradWrapper:
    return NatGradWrapper(deep_gp.as_training_model(), **others)


def _drop_in(deep_gp: gpflux.models.DeepGP) -> NatGradModel:
    model: NatGradModel = deep_gp.as_training_model(model_class=NatGradModel)
    return model


BOTH = pytest.mark.parametrize("build", [_wrapped, _drop_in])
Build = Callable[[gpflux.models.DeepGP], Any]


def _fit(model: Any, epochs: int = 1, **others: Any) -> Any:
    return model.fit(DATA, batch_size=60, epochs=epochs, verbose=0, shuffle=False, **others)


def _optimum(deep_gp: gpflux.models.DeepGP) -> float:
    layer = deep_gp.f_layers[0]
    Z = layer.inducing_variable.inducing_variable
    return float(gpflow.models.SGPR((X, Y), layer.kernel.kernel, Z, noise_variance=0.1).elbo())


@BOTH
def test_one_step_of_length_1_reaches_the_optimum_of_a_conjugate_model(build: Build) -> None:
    """GPflux's own steps, along the gradient of the mean over rows, go a 60th of the way."""
    deep_gp = _deep_gp(1)
    model = build(deep_gp)
    model.compile(tf.keras.optimizers.SGD(0.0), gamma=1.0, run_eagerly=True)
    before = float(deep_gp.elbo((X, Y)))
    _fit(model)
    assert before < _optimum(deep_gp) - 1
    assert float(deep_gp.elbo((X, Y))) == pytest.approx(_optimum(deep_gp), rel=1e-6)


@BOTH
def test_gpflows_optimizers_keep_the_meaning_that_they_have_in_gpflux(build: Build) -> None:
    ours, theirs = _deep_gp(1), _deep_gp(1)
    stock = theirs.as_training_model(gpflux.optimization.NatGradModel)
    stock.natgrad_layers = True
    for model in (build(ours), stock):
        optimizers = [gpflow.optimizers.NaturalGradient(1.0), tf.keras.optimizers.Adam(0.01)]
        model.compile(optimizers, run_eagerly=True)
        _fit(model, epochs=3)
    # One computation in two orders of summation.
    np.testing.assert_allclose(ours.f_layers[0].q_mu, theirs.f_layers[0].q_mu, atol=1e-9)
    np.testing.assert_allclose(ours.f_layers[0].q_sqrt, theirs.f_layers[0].q_sqrt, atol=1e-9)
    assert np.max(np.abs(ours.f_layers[0].q_mu)) > 1e-3


@BOTH
def test_two_layers_train_and_schedulers_find_the_optimizer(build: Build) -> None:
    deep_gp = _deep_gp()
    model = build(deep_gp)
    natural = [NaturalGradient(0.1, positive_definite="guaranteed"), NaturalGradient(0.1)]
    model.compile([*natural, tf.keras.optimizers.Adam(0.01)])
    assert model.natgrad_optimizers == natural
    callbacks = [
        tf.keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.9 * rate),
        tf.keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, factor=0.5, min_delta=99),
    ]
    history = _fit(model, epochs=10, callbacks=callbacks, validation_data=(DATA,)).history
    assert history["loss"][-1] < history["loss"][0] - 1
    assert [int(optimizer.iterations) for optimizer in natural] == [10, 10]
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01 * 0.9**10 / 2**9, rel=1e-5)
    # The negative bound, as in training, and no zero.
    bound = -float(deep_gp.elbo((X, Y))) / 60
    assert history["val_loss"][-1] == pytest.approx(bound, rel=0.05)  # samples
    assert bound != 0


@pytest.mark.parametrize(
    ("optimizers", "error", "message"),
    [
        (["adam"], ValueError, "there are 0 natural-gradient optimizers; give a list of one .* 2 "),
        ([NaturalGradient(0.1), "adam"], ValueError, "there are 1 natural-gradient optimizers"),
        ([*(NaturalGradient(0.1) for _ in range(3)), "adam"], ValueError, "there are 3 natural"),
        ([tf.keras.optimizers.Adam()] * 3, TypeError, "Adam is no natural-gradient optimizer"),
        ([NaturalGradient(0.1)] * 2, TypeError, "the last optimizer is a NaturalGradient; give"),
        ([], ValueError, "there are 0 natural-gradient optimizers"),
        (NaturalGradient(0.1), TypeError, "the last optimizer is a NaturalGradient; give"),
    ],
)
def test_a_wrong_list_of_optimizers_is_told(
    optimizers: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _wrapped(_deep_gp()).compile(optimizers)


def test_the_chosen_layers_may_change() -> None:
    deep_gp = _deep_gp()
    first, last = deep_gp.f_layers
    model = _wrapped(deep_gp, natgrad_layers=[last], name="wrapped")
    assert model.name == "wrapped"
    model.compile(tf.keras.optimizers.SGD(0.0), gamma=0.1, run_eagerly=True)
    before = first.q_mu.numpy(), first.q_sqrt.numpy()
    _fit(model)
    np.testing.assert_array_equal(first.q_mu, before[0])
    np.testing.assert_array_equal(first.q_sqrt, before[1])
    assert np.any(last.q_mu.numpy() != 0)

    model.natgrad_layers = True
    with pytest.raises(ValueError, match=r"there are 1 .*; give .* each of the 2"):
        _fit(model)
    model.compile(tf.keras.optimizers.SGD(0.0), gamma=0.1, run_eagerly=True)
    _fit(model)
    assert np.any(first.q_sqrt.numpy() != before[1])
    model.natgrad_layers = False
    model.compile("adam", run_eagerly=True)
    assert model.natgrad_optimizers == []
    _fit(model)


def test_models_by_subclassing_after_one_by_functions_and_before() -> None:
    class Subclassed(NatGradModel):
        def __init__(self, deep_gp: gpflux.models.DeepGP) -> None:
            super().__init__()
            self.base = deep_gp.as_training_model()
            self.natgrad_layers = list(deep_gp.f_layers)

        def call(self, data: Any, training: bool | None = None) -> Any:
            return self.base.call(data, training=training)

    class OwnLayers(tf.keras.Model):
        def __init__(self, deep_gp: gpflux.models.DeepGP) -> None:
            super().__init__()
            self.f_layers, self.last = list(deep_gp.f_layers), deep_gp.likelihood_layer

        def call(self, data: Any, training: bool | None = None) -> Any:
            F = data["inputs"]
            for layer in self.f_layers:
                F = layer(F, training=training)
            return self.last(F, targets=data["targets"], training=training)

    for _ in range(2):
        for build in (Subclassed, lambda one: NatGradWrapper(OwnLayers(one)), _drop_in, _wrapped):
            model = build(_deep_gp())
            model.compile("adam", gamma=0.1, run_eagerly=True)
            losses = _fit(model, epochs=2).history["loss"]
            assert losses[1] < losses[0]
        small_model().train_step(batch_of())


@BOTH
@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_saved_weights_come_back(build: Build, suffix: str, tmp_path: Path) -> None:
    path = str(tmp_path / f"weights{suffix}")
    model, other = build(_deep_gp()), build(_deep_gp())
    for one in (model, other):
        one.compile("adam", gamma=0.1, run_eagerly=True)
    _fit(model, epochs=2)
    model.save_weights(path)
    assert np.any(model.natgrad_layers[0].q_mu != other.natgrad_layers[0].q_mu)
    other.load_weights(path)
    for one, another in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, another)


@BOTH
def test_inner_layers_are_guarded_and_what_keras_cannot_do_is_told(
    build: Build, tmp_path: Path
) -> None:
    model = build(_deep_gp(3))
    model.compile("adam", gamma=0.1)
    kinds = [one.positive_definite for one in model.natgrad_optimizers]
    assert kinds == ["guaranteed", "guaranteed", "fallback"]
    with pytest.raises(NotImplementedError, match="use save_weights, build the model anew"):
        model.save(str(tmp_path / "model"))
    with pytest.raises(ValueError, match="sample_weight has no effect on losses that layers add"):
        model.fit(DATA, sample_weight=np.ones(60), verbose=0)


@BOTH
def test_q_set_untrainable_is_left_to_natural_gradients(build: Build) -> None:
    """As GPflow's tutorials do, so that Adam leaves it alone."""
    deep_gp = _deep_gp()
    for layer in deep_gp.f_layers:
        gpflow.set_trainable(layer.q_mu, False)
        gpflow.set_trainable(layer.q_sqrt, False)
    model, free = build(deep_gp), build(_deep_gp())
    for one in (model, free):
        tf.random.set_seed(1)
        one.compile(tf.keras.optimizers.SGD(0.0), gamma=0.1, run_eagerly=True)
        _fit(one)
    np.testing.assert_array_equal(model.natgrad_layers[1].q_mu, free.natgrad_layers[1].q_mu)
    assert np.any(model.natgrad_layers[1].q_mu.numpy() != 0)


def test_weights_are_heeded_where_a_loss_is() -> None:
    def fit(weights: Any) -> FloatArray:
        layer = _deep_gp(1).f_layers[0]
        model = NatGradWrapper(tf.keras.Sequential([layer]))
        loss = gpflux.losses.LikelihoodLoss(gpflow.likelihoods.Gaussian(0.1))
        model.compile(tf.keras.optimizers.SGD(0.0), loss=loss, gamma=0.1, run_eagerly=True)
        model.fit(X, Y, sample_weight=weights, batch_size=60, verbose=0)
        return np.asarray(layer.q_mu)

    assert np.max(np.abs(fit(np.full(60, 0.5)) - fit(None))) > 1e-3


@BOTH
def test_the_loss_in_evaluation_is_the_mean_over_rows(build: Build) -> None:
    """As ranks need it, which have batches of any size, and none in some."""
    model = build(_deep_gp(1))
    model.compile(tf.keras.optimizers.Adam(0.01))

    def loss(*ends: int) -> float:
        model.reset_metrics()
        for first, last in itertools.pairwise((0, *ends)):
            batch = {name: tf.constant(rows[first:last]) for name, rows in DATA.items()}
            logs = model.test_step(batch)
        return float(logs["loss"])

    assert loss(40, 60, 60) == pytest.approx(loss(60), rel=1e-12)  # one sum in another order
