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
from natdgp.settings.schema import Settings
from natdgp.training.assembly import build_optimizers, build_training_model
from natdgp.training.model import DeepGPModel
from natdgp.training.training_settings import AdamSettings
from tests.conftest import FloatArray
from tests.unit.training.ranks import together

N = 30
SHAPE = TaskShape(N, 3, 1)
Y_STD = np.array([2.0])


def _settings(model: dict[str, Any] | None = None, natural: Any = None, **groups: Any) -> Settings:
    return Settings(
        global_batch_size=10,
        data=TableSettings(source="csv", path="rows.csv", target=("y",)),
        model=ModelSettings(**{"layers": 2, "inducing_points": 4, **(model or {})}),
        natural_gradient=NaturalGradientSettings(**{"layers": "all", **(natural or {})}),
        **groups,
    )


def _rows(dtype: str = "float64") -> Any:
    return np.random.default_rng(0).normal(size=(N, 3)).astype(dtype)


def _build(settings: Settings, X: Any = None, **others: Any) -> DeepGPModel:
    model = build_training_model(settings, SHAPE, Y_STD, seed=5, X=X, **others)
    model.compile(optimizer=build_optimizers(settings, model))
    return model


@pytest.mark.parametrize(
    ("chosen", "indices", "kinds"),
    [
        ("all", [0, 1, 2], ["guaranteed", "guaranteed", "fallback"]),
        ("last", [2], ["fallback"]),
        ("none", [], []),
        ((0, 2), [0, 2], ["guaranteed", "fallback"]),
    ],
)
def test_layers_with_natural_gradients_are_those_of_the_settings(
    chosen: Any, indices: list[int], kinds: list[str]
) -> None:
    model = _build(_settings({"layers": 3}, {"layers": chosen}))
    assert model.natgrad_layers == [model.deep_gp.f_layers[index] for index in indices]
    # By default inner layers take the guaranteed step.
    assert [one.positive_definite for one in model.natgrad_optimizers] == kinds
    assert all(one.max_kl is None for one in model.natgrad_optimizers)


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
    ramp = {"gamma": 0.1, "gamma_initial": 0.001, "ramp_steps": 5}
    model = _build(_settings({"dtype": dtype}, ramp))
    first, second = (optimizer.gamma for optimizer in model.natgrad_optimizers)
    assert first is not second
    for gamma in (first, second):
        assert gamma.dtype.name == dtype
        assert not gamma.trainable
        assert float(gamma) == pytest.approx(0.001, rel=1e-6)  # float32


def test_step_lengths_and_safeguards_are_those_of_the_settings() -> None:
    chosen = {"gamma": [0.2, 1.0], "positive_definite": "guaranteed", "max_kl": 2.5}
    optimizers = _build(_settings(natural=chosen)).natgrad_optimizers
    assert [float(one.gamma) for one in optimizers] == [0.2, 1.0]
    for optimizer in optimizers:
        assert (optimizer.positive_definite, optimizer.max_kl) == ("guaranteed", 2.5)


def test_adams_state_exists_before_the_first_step() -> None:
    model = _build(_settings(adam=AdamSettings(learning_rate=0.03)))
    adam, X = model.optimizer, _rows()
    # The number of its steps, and two moments for each variable.
    count = 1 + 2 * len(model.other_variables())
    assert len(adam.variables) == count
    assert float(adam.learning_rate) == pytest.approx(0.03, rel=1e-6)  # a float32 in Keras
    model.train_step({"inputs": X, "targets": np.sin(X[:, :1])})
    assert len(adam.variables) == count


def test_determineds_wrapper_sees_adam_alone_and_what_it_returns_is_used() -> None:
    settings = _settings()
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
