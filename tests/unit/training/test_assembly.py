from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from natdgp.data.data_settings import TableSettings
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.builder import TaskShape
from natdgp.models.inducing import TooFewRows
from natdgp.models.model_settings import ModelSettings
from natdgp.natgrad.natgrad_settings import NaturalGradientSettings
from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.settings.schema import Settings
from natdgp.training.assembly import build_optimizers, build_training_model
from natdgp.training.model import DeepGPModel
from natdgp.training.training_settings import AdamSettings, EvaluationSettings
from tests.conftest import FloatArray
from tests.unit.training.ranks import together

N = 30
SHAPE = TaskShape(N, 3, 1)
Y_STD = np.array([2.0])


def _settings(model: dict[str, Any] | None = None, **groups: Any) -> Settings:
    return Settings(
        global_batch_size=10,
        data=TableSettings(source="csv", path="rows.csv", target=("y",)),
        model=ModelSettings(**{"layers": 2, "inducing_points": 4, **(model or {})}),
        evaluation=EvaluationSettings(num_samples=2, batch_size=6),
        **groups,
    )


def _rows(dtype: str = "float64") -> Any:
    return np.random.default_rng(0).normal(size=(N, 3)).astype(dtype)


def _build(settings: Settings, X: Any = None, **others: Any) -> DeepGPModel:
    model = build_training_model(settings, SHAPE, Y_STD, seed=5, X=X, **others)
    model.compile(optimizer=build_optimizers(settings, model))
    return model


@pytest.mark.parametrize(
    ("chosen", "indices"), [("all", [0, 1, 2]), ("last", [2]), ("none", []), ((0, 2), [0, 2])]
)
def test_layers_with_natural_gradients_are_those_of_the_settings(
    chosen: Any, indices: list[int]
) -> None:
    settings = _settings({"layers": 3}, natural_gradient=NaturalGradientSettings(layers=chosen))
    model = _build(settings)
    layers = model.deep_gp.f_layers
    assert model.natgrad_layers == [layers[index] for index in indices]
    assert len(model.natgrad_optimizers) == len(indices)
    assert all(isinstance(one, NaturalGradient) for one in model.natgrad_optimizers)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_ranks_begin_with_the_values_of_rank_0(dtype: str) -> None:
    # A width below D: principal components are among the values.
    settings = _settings({"hidden_width": 2, "dtype": dtype})

    def build(reducer: Reducer) -> DeepGPModel:
        model = _build(settings, _rows(dtype) if reducer.rank == 0 else None, reducer=reducer)
        model.reducer = OneProcess()
        return model

    chief, *others = together(3, build)
    alone, shell = _build(settings, _rows(dtype)), _build(settings)

    def inner(model: DeepGPModel) -> FloatArray:
        layer = model.deep_gp.f_layers[0]
        return np.asarray(layer.marginals(_rows(dtype), layer.posterior())[0])

    assert np.all(inner(shell) != inner(alone))  # different before
    for model in (chief, *others):
        for variable, other in zip(model.variables, alone.variables, strict=True):
            np.testing.assert_array_equal(variable.numpy(), other.numpy(), err_msg=variable.name)
        np.testing.assert_array_equal(inner(model), inner(alone))


def test_too_few_rows_are_told_on_all_ranks() -> None:
    """Only rank 0 can see it; a rank that went on alone would wait for it for ever."""
    settings = _settings({"inducing_points": N + 1})

    def build(reducer: Reducer) -> str:
        X = _rows() if reducer.rank == 0 else None
        with pytest.raises(TooFewRows) as raised:
            _build(settings, X, reducer=reducer)
        return str(raised.value)

    chief, *others = together(3, build)
    assert str(N + 1) in chief
    assert others == ["rank 0 has fewer distinct rows than inducing points"] * 2


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gamma_starts_as_a_variable_at_its_schedules_first_value(dtype: Any) -> None:
    ramp = NaturalGradientSettings(layers="all", gamma=0.1, gamma_initial=0.001, ramp_steps=5)
    model = _build(_settings({"dtype": dtype}, natural_gradient=ramp))
    gammas = [optimizer.gamma for optimizer in model.natgrad_optimizers]
    assert gammas[0] is not gammas[1]
    for gamma in gammas:
        assert gamma.dtype.name == dtype
        assert not gamma.trainable
        assert float(gamma) == pytest.approx(0.001, rel=1e-6)  # float32


def test_every_layer_may_have_a_step_length_of_its_own() -> None:
    model = _build(_settings(natural_gradient={"layers": "all", "gamma": [0.2, 1.0]}))
    assert [float(one.gamma) for one in model.natgrad_optimizers] == [0.2, 1.0]


def test_the_safeguards_are_those_of_the_settings() -> None:
    chosen = NaturalGradientSettings(layers="all", positive_definite="guaranteed", max_kl=2.5)
    for optimizer in _build(_settings(natural_gradient=chosen)).natgrad_optimizers:
        assert optimizer.positive_definite == "guaranteed"
        assert optimizer.max_kl == 2.5


def test_by_default_inner_layers_take_the_guaranteed_step() -> None:
    every = NaturalGradientSettings(layers="all")
    optimizers = _build(_settings({"layers": 3}, natural_gradient=every)).natgrad_optimizers
    kinds = [optimizer.positive_definite for optimizer in optimizers]
    assert kinds == ["guaranteed", "guaranteed", "fallback"]
    assert all(optimizer.max_kl is None for optimizer in optimizers)
    last = NaturalGradientSettings(layers="last")
    (optimizer,) = _build(_settings({"layers": 3}, natural_gradient=last)).natgrad_optimizers
    assert optimizer.positive_definite == "fallback"


def test_adams_state_exists_before_the_first_step() -> None:
    model = _build(_settings(adam=AdamSettings(learning_rate=0.03)))
    adam = model.optimizer
    others = model.other_variables()
    # The number of its steps, and two moments for each variable.
    assert len(adam.variables) == 1 + 2 * len(others)
    assert float(adam.learning_rate) == pytest.approx(0.03, rel=1e-6)  # a float32 in Keras
    count = len(adam.variables)
    X = _rows()
    model.train_step({"inputs": X, "targets": np.sin(X[:, :1])})
    assert len(adam.variables) == count


def test_determineds_wrapper_sees_adam_alone_and_what_it_returns_is_used() -> None:
    settings = _settings(natural_gradient=NaturalGradientSettings(layers="all"))
    model = build_training_model(settings, SHAPE, Y_STD, seed=5)
    wrapped = tf.keras.optimizers.Adam(0.5)
    seen: list[tf.keras.optimizers.Optimizer] = []

    def wrap(optimizer: tf.keras.optimizers.Optimizer) -> tf.keras.optimizers.Optimizer:
        seen.append(optimizer)
        return wrapped

    optimizers = build_optimizers(settings, model, wrap)
    (adam,) = seen
    assert isinstance(adam, tf.keras.optimizers.Adam)
    assert adam is not wrapped
    assert optimizers[-1] is wrapped
    assert len(optimizers) == 3
    assert len(wrapped.variables) == 1 + 2 * len(model.other_variables())  # built at once
