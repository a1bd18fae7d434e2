"""Builds a deep GP from settings, as in Salimbeni & Deisenroth 2017."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import gpflow
import numpy as np
from gpflow.inducing_variables import InducingPoints, SharedIndependentInducingVariables
from gpflow.kernels import SharedIndependent

from natdgp.data.prepare import Numbers
from natdgp.likelihoods.registry import build_likelihood
from natdgp.models.deep_gp import DeepGP
from natdgp.models.inducing import kmeans_inducing_points
from natdgp.models.kernels import build_kernel
from natdgp.models.layers.gp import GPLayer
from natdgp.models.model_settings import ModelSettings

MAX_DEFAULT_WIDTH = 30
"""Inner layers are no wider than this by default (Salimbeni & Deisenroth 2017, section 5)."""


@dataclass(frozen=True)
class TaskShape:
    """The numbers of a task that fix a model's shape."""

    num_data: int
    """N, training rows."""
    input_dim: int
    """D, features."""
    output_dim: int
    """Q, targets."""


def output_dims(settings: ModelSettings, shape: TaskShape) -> tuple[int, ...]:
    """The output dimension of every layer, first to last."""
    width = settings.hidden_width or min(shape.input_dim, MAX_DEFAULT_WIDTH)
    return (*(width,) * (settings.layers - 1), shape.output_dim)


def build_deep_gp(
    settings: ModelSettings, shape: TaskShape, *, seed: int, X: Numbers | None = None
) -> DeepGP:
    """Build a deep GP in the settings' float type.

    Inner layers have the identity as mean function where widths agree, the first principal
    components of the layer's inputs where it narrows, and zero-padding where it widens; the last
    layer has mean zero. Inducing inputs start at k-means centres of X, pushed through the mean
    functions. All outputs of a layer share its kernel and inducing inputs.

    :param settings: the model.
    :param shape: N, D and Q.
    :param seed: of k-means and of the sampling noise.
    :param X: [N, D] standardised training inputs; None builds an empty shell of the right shapes,
        to be filled from a checkpoint.
    :raises TooFewRows: if X has fewer distinct rows than the largest M.
    """
    # GPflow makes parameters in its default type; the models keep theirs.
    own = dataclasses.replace(gpflow.config.config(), float=np.dtype(settings.dtype).type)
    with gpflow.config.as_context(own):
        return _build(settings, shape, seed, X)


def _build(settings: ModelSettings, shape: TaskShape, seed: int, X: Numbers | None) -> DeepGP:
    inputs = X  # the layer's inputs as far as mean functions alone carry them
    likelihood = build_likelihood(settings.likelihood, settings.dtype)
    *inner, _ = output_dims(settings, shape)
    widths = [*inner, likelihood.num_latent_gps(shape.output_dim)]

    layers = []
    in_dim = shape.input_dim
    for index, out_dim in enumerate(widths):
        last = index == settings.layers - 1
        num_inducing = settings.inducing_points_per_layer[index]
        Z = (
            np.zeros((num_inducing, in_dim), dtype=settings.dtype)
            if inputs is None
            else kmeans_inducing_points(inputs, num_inducing, seed)
        )
        mean_function = (
            gpflow.mean_functions.Zero(out_dim)
            if last
            else _inner_mean_function(inputs, in_dim, out_dim)
        )
        layer = GPLayer(
            SharedIndependent(build_kernel(settings.kernel, in_dim), output_dim=out_dim),
            SharedIndependentInducingVariables(InducingPoints(Z)),
            num_data=shape.num_data,
            mean_function=mean_function,
            num_latent_gps=out_dim,
            name=f"layer_{index}",
            verbose=False,
        )
        gpflow.set_trainable(layer.inducing_variable, settings.train_inducing_points)
        if not last:
            layer.q_sqrt.assign(layer.q_sqrt * settings.inner_q_sqrt_scale)
            inputs = None if inputs is None else np.asarray(mean_function(inputs))
        layers.append(layer)
        in_dim = out_dim
    return DeepGP(layers, likelihood, num_data=shape.num_data, seed=seed)


def _inner_mean_function(
    inputs: Numbers | None, in_dim: int, out_dim: int
) -> gpflow.functions.MeanFunction:
    if in_dim == out_dim:
        return gpflow.mean_functions.Identity(in_dim)
    A = np.zeros((in_dim, out_dim))
    if in_dim < out_dim:
        A[:, :in_dim] = np.eye(in_dim)
    elif inputs is not None:
        _, components = np.linalg.eigh(np.cov(inputs, rowvar=False))  # variances ascend
        A[:] = components[:, : -out_dim - 1 : -1]
    linear = gpflow.mean_functions.Linear(A, np.zeros(out_dim))
    gpflow.set_trainable(linear, False)
    return linear
