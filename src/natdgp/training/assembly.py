"""Builds the training model and its optimizers from settings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from natdgp.data.prepare import Numbers
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.deep_gp import DeepGP
from natdgp.models.inducing import TooFewRows
from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.settings.schema import Settings
from natdgp.training.model import DeepGPModel
from natdgp.training.schedules import gamma_at
from natdgp.training.steppers import Aggregation


def build_training_model(
    settings: Settings,
    shape: TaskShape,
    y_std: npt.NDArray[np.float64],
    *,
    seed: int,
    X: Numbers | None = None,
    deep_gp: DeepGP | None = None,
    reducer: Reducer | None = None,
    aggregation: Aggregation | None = None,
) -> DeepGPModel:
    """Build the model, not yet compiled.

    :param settings: the run.
    :param shape: N, D and Q.
    :param y_std: [Q], the standard deviations that targets were divided by.
    :param seed: the trial's seed.
    :param X: [N, D] standardised training inputs; None for a shell to be filled from a checkpoint.
    :param deep_gp: the deep GP to train; by default that of the settings.
    :param reducer: adds up over ranks; by default this process is alone. Rank 0 gives the others
        its initial values, so that only it needs X.
    :param aggregation: how many batches make a step of the optimizers; by default one.
    :raises TooFewRows: on all ranks, if rank 0 has fewer distinct rows than inducing points.
    """
    reducer = reducer or OneProcess()
    deep_gp = deep_gp or _build_on_all_ranks(settings, shape, seed, X, reducer)
    return DeepGPModel(
        deep_gp,
        natgrad_layers=settings.natural_gradient.layers_of(len(deep_gp.gp_layers)),
        num_samples=settings.model.num_samples,
        evaluation_samples=settings.evaluation.num_samples,
        y_std=y_std,
        reducer=reducer,
        aggregation=aggregation,
        placement=settings.natural_gradient.placement,
    )


def _build_on_all_ranks(
    settings: Settings, shape: TaskShape, seed: int, X: Numbers | None, reducer: Reducer
) -> DeepGP:
    """A rank that raised alone would leave the others waiting for it."""
    deep_gp, error = None, None
    try:
        deep_gp = build_deep_gp(settings.model, shape, seed=seed, X=X)
    except TooFewRows as raised:
        error = raised
    failed = reducer.total(tf.constant(0.0 if error is None else 1.0))
    if deep_gp is None or float(failed) > 0:
        raise error or TooFewRows("rank 0 has fewer distinct rows than inducing points")
    return deep_gp


def build_optimizers(
    settings: Settings,
    model: DeepGPModel,
    wrap_optimizer: Callable[
        [tf.keras.optimizers.Optimizer], tf.keras.optimizers.Optimizer
    ] = lambda optimizer: optimizer,
) -> list[tf.keras.optimizers.Optimizer]:
    """Natural gradients for the chosen layers and Adam for the rest, in the order of `compile`.

    Their state exists at once (gamma as a variable, Adam's moments), so that a checkpoint restores
    into it whole.

    :param wrap_optimizer: Determined's `context.wrap_optimizer`; it sees Adam alone.
    """
    chosen = settings.natural_gradient
    last = model.deep_gp.f_layers[-1]
    natural = [
        NaturalGradient(
            tf.Variable(gamma_at(chosen, 0, position), dtype=settings.model.dtype, trainable=False),
            positive_definite=chosen.positive_definite
            or ("fallback" if layer is last else "guaranteed"),
            max_kl=chosen.max_kl,
        )
        for position, layer in enumerate(model.natgrad_layers)
    ]
    adam = wrap_optimizer(tf.keras.optimizers.Adam(settings.adam.learning_rate))
    adam.build(model.other_variables())
    return [*natural, adam]
