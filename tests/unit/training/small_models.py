"""A small deep GP to train, which the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gpflow
import numpy as np
import tensorflow as tf

from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.deep_gp import DeepGP
from natdgp.models.model_settings import ModelSettings
from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.training.model import DeepGPModel
from tests.conftest import FloatArray

N, B = 40, 12
GAMMA, RATE = 0.2, 0.01
Y_STD = np.array([3.0])

Batch = dict[str, tf.Tensor]


def rows() -> tuple[FloatArray, FloatArray]:
    """[N, 2] inputs and [N, 1] targets."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(N, 2))
    return X, np.sin(2 * X[:, :1]) + 0.1 * generator.normal(size=(N, 1))


def small_deep_gp(layers: int = 2, **settings: Any) -> DeepGP:
    """A deep GP whose every q(u) is away from its start, so that all gradients are at work.

    Where gradients vanish, Adam would make steps of their rounding.
    """
    settings = {"inducing_points": 5, **settings}
    deep_gp = build_deep_gp(
        ModelSettings(layers=layers, **settings), TaskShape(N, 2, 1), seed=7, X=rows()[0]
    )
    generator = np.random.default_rng(1)
    for layer in deep_gp.f_layers:
        layer.q_mu.assign(0.3 * generator.normal(size=layer.q_mu.shape))
        identity = np.broadcast_to(np.eye(layer.q_mu.shape[0]), layer.q_sqrt.shape)
        layer.q_sqrt.assign(np.tril(0.5 * identity + 0.05 * generator.normal(size=identity.shape)))
    return deep_gp


def small_model(
    natgrad_layers: Sequence[int] = (0, 1),
    *,
    deep_gp: DeepGP | None = None,
    S: int = 1,
    gamma: float = GAMMA,
    rate: float = RATE,
    evaluation_samples: int = 3,
    **others: Any,
) -> DeepGPModel:
    """Compiled, with Adam's state there from the beginning."""
    model = DeepGPModel(
        deep_gp or small_deep_gp(),
        natgrad_layers=natgrad_layers,
        num_samples=S,
        evaluation_samples=evaluation_samples,
        y_std=Y_STD,
        **others,
    )
    natural = [NaturalGradient(tf.Variable(gamma, dtype=tf.float64)) for _ in natgrad_layers]
    adam = tf.keras.optimizers.Adam(rate)
    adam.build(model.other_variables())
    model.compile(optimizer=[*natural, adam])
    return model


def batch_of(positions: Iterable[int] = range(B)) -> Batch:
    """The rows at these positions of the stream of examples."""
    X, Y = rows()
    positions = np.array(list(positions), dtype=np.int64)
    return {
        "inputs": tf.constant(X[positions % N]),
        "targets": tf.constant(Y[positions % N]),
        "positions": tf.constant(positions),
    }


def values(deep_gp: DeepGP) -> dict[str, FloatArray]:
    """Every parameter of a model by a name of its own."""
    modules = {layer.name: layer for layer in deep_gp.f_layers}
    return {
        f"{name}{path}": parameter.numpy().copy()
        for name, module in {**modules, "likelihood": deep_gp.gpflow_likelihood}.items()
        for path, parameter in gpflow.utilities.parameter_dict(module).items()
        if not path.startswith("._")  # Keras' lists of the same parameters
    }


def state(model: DeepGPModel) -> list[FloatArray]:
    """All that training changes but the number of steps."""
    return [one.numpy() for one in (*model.trainable_variables, *model.optimizer.variables)]


def all_equal(some: list[FloatArray], other: list[FloatArray]) -> bool:
    """To the last bit."""
    return all(np.array_equal(one, another) for one, another in zip(some, other, strict=True))
