from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from natdgp.distributed.reducer import Reducer
from natdgp.training.drift import Drift, check_drift
from natdgp.training.model import DeepGPModel
from tests.unit.training.ranks import together
from tests.unit.training.small_models import small_deep_gp, small_model


def _model(**others: Any) -> DeepGPModel:
    deep_gp = small_deep_gp(hidden_width=1, inducing_points=3)
    return small_model((1,), deep_gp=deep_gp, **others)


@pytest.fixture(scope="module")
def models() -> list[DeepGPModel]:
    """Equal models of three ranks."""
    return [_model() for _ in range(3)]


def _messages(models: list[DeepGPModel]) -> list[str | None]:
    """What each rank's check says, in lockstep with those of the others."""

    def check(reducer: Reducer) -> str | None:
        model = models[reducer.rank]
        model.reducer = reducer
        try:
            check_drift(model)
        except Drift as drift:
            return str(drift)
        return None

    return together(len(models), check)


def _variable(one: Any) -> tf.Variable:
    """A variable, or that of a parameter."""
    return getattr(one, "unconstrained_variable", one)


def _nudge(one: Any) -> Callable[[], None]:
    """Move one number by its last bit; returns what moves it back."""
    variable = _variable(one)
    before = np.array(variable)
    after = before.copy()
    last = after.reshape(-1)[-1:]
    last[:] = last + 1 if np.issubdtype(last.dtype, np.integer) else np.nextafter(last, np.inf)
    variable.assign(after)
    return lambda: variable.assign(before)


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        (lambda m: m.deep_gp.f_layers[0].q_mu, "layer_0.q_mu"),
        (lambda m: m.deep_gp.f_layers[1].q_sqrt, "layer_1.q_sqrt"),
        (
            lambda m: m.deep_gp.f_layers[1].kernel.kernel.lengthscales,
            "layer_1.kernel.kernel.lengthscales",
        ),
        (lambda m: m.deep_gp.gpflow_likelihood.variance, "likelihood.variance"),
        (lambda m: m.optimizer.variables[2], r"Adam's variable 2 \(v/layer_0_q_mu:0\)"),
        (lambda m: m.step, "the number of steps"),
    ],
)
def test_the_parameter_that_differs_is_named_on_every_rank(
    models: list[DeepGPModel], variable: Callable[[DeepGPModel], tf.Variable], name: str
) -> None:
    undo = _nudge(variable(models[1]))
    messages = _messages(models)
    undo()
    assert _messages(models) == [None] * 3
    # A rank tells of its own number of steps.
    for rank, message in enumerate(messages):
        step = int(rank == 1 and name == "the number of steps")
        found = rf"after step {step}, {name} on rank 1 is not what it is on rank 0 \(1 of \d+ para"
        assert re.match(found, message or ""), message


def test_the_first_of_several_is_named_with_all_its_ranks(models: list[DeepGPModel]) -> None:
    undo = [_nudge(models[rank].deep_gp.f_layers[layer].q_mu) for rank, layer in ((1, 1), (0, 0))]
    messages = _messages(models)
    for each in undo:
        each()
    # Rank 0 is the odd one here, but it is what the others are compared with.
    (message,) = set(messages)
    assert message is not None
    assert "layer_0.q_mu on rank 1, 2 is not what it is on rank 0 (2 of " in message


def test_every_variable_of_training_is_watched(models: list[DeepGPModel]) -> None:
    model, *_ = models
    trained = [*model.trainable_variables, *model.optimizer.variables, model.step]
    # Parameters that are not trained come from rank 0 as well.
    for one in (*trained, *model.deep_gp.f_layers[0].mean_function.parameters):
        undo = _nudge(one)
        assert None not in _messages(models[:2]), one.name
        undo()


def test_equal_breakdowns_are_no_drift(models: list[DeepGPModel]) -> None:
    variables = [_variable(model.deep_gp.f_layers[0].q_mu) for model in models]
    before = variables[0].numpy()
    for variable in variables:
        variable.assign(tf.fill(variable.shape, tf.constant(np.nan, tf.float64)))
    messages = _messages(models)
    for variable in variables:
        variable.assign(before)
    assert messages == [None] * 3
