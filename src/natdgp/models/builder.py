"""Builds a deep GP from settings, as in Salimbeni & Deisenroth 2017."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import gpflow
import numpy as np
import tensorflow_probability as tfp
from gpflow.inducing_variables import InducingPoints, SharedIndependentInducingVariables
from gpflow.kernels import SharedIndependent

from natdgp.data.prepare import Numbers
from natdgp.likelihoods.registry import build_likelihood
from natdgp.models.deep_gp import DeepGP
from natdgp.models.encoders import MLPEncoder, RowEncoder
from natdgp.models.inducing import kmeans_inducing_points
from natdgp.models.kernels import build_kernel
from natdgp.models.layers.gp import GPLayer
from natdgp.models.layers.latent import LatentVariableLayer
from natdgp.models.model_settings import KernelSettings, LatentLayerSettings, ModelSettings

MAX_DEFAULT_WIDTH = 30
"""Inner layers are no wider than this by default (Salimbeni & Deisenroth 2017, section 5)."""


_PRIORS = {
    "normal": tfp.distributions.MultivariateNormalDiag,
    "laplace": tfp.distributions.Laplace,
    "logistic": tfp.distributions.Logistic,
}


@dataclass(frozen=True)
class TaskShape:
    """The numbers of a task that fix a model's shape."""

    num_data: int
    """N, training rows."""
    input_dim: int
    """D, features."""
    output_dim: int
    """Q, targets."""


class LayerSize(NamedTuple):
    """What fixes the shape of one layer."""

    latent: LatentLayerSettings | None
    """None for a GP layer."""
    kernel: KernelSettings
    in_dim: int
    out_dim: int
    num_inducing: int
    """M; 0 for a layer without inducing points."""


def layer_sizes(settings: ModelSettings, shape: TaskShape, latent_gps: int) -> list[LayerSize]:
    """The sizes of all layers, first to last.

    :param latent_gps: P of the last layer.
    """
    sizes, in_dim = list[LayerSize](), shape.input_dim
    inducing = iter(settings.inducing_points_per_layer)
    for index, layer in enumerate(settings.each_layer):
        kernel, M = settings.kernel, 0
        if layer.latent is not None:
            out_dim = in_dim + layer.latent.dim
        else:
            assert layer.gp is not None, "validated"
            width = layer.gp.width or settings.hidden_width or min(in_dim, MAX_DEFAULT_WIDTH)
            out_dim = latent_gps if index == len(settings.each_layer) - 1 else width
            kernel, M = layer.gp.kernel or kernel, next(inducing)
        sizes.append(LayerSize(layer.latent, kernel, in_dim, out_dim, M))
        in_dim = out_dim
    return sizes


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
    latent = 0  # of these, the columns at the end that are latent variables
    likelihood = build_likelihood(settings.likelihood, settings.dtype)
    sizes = layer_sizes(settings, shape, likelihood.num_latent_gps(shape.output_dim))

    layers: list[GPLayer | LatentVariableLayer] = []
    for index, size in enumerate(sizes):
        if size.latent is not None:
            layers.append(_latent_layer(size.latent, shape, seed, index))
            if inputs is not None:
                w = np.random.default_rng([seed, index]).normal(size=(len(inputs), size.latent.dim))
                inputs = np.concatenate([inputs, w.astype(inputs.dtype)], axis=1)
            latent += size.latent.dim
            continue
        last = index == len(sizes) - 1
        Z = (
            np.zeros((size.num_inducing, size.in_dim), dtype=settings.dtype)
            if inputs is None
            else _inducing_inputs(inputs, latent, size.num_inducing, seed)
        )
        mean_function = (
            gpflow.mean_functions.Zero(size.out_dim)
            if last
            else _inner_mean_function(inputs, size.in_dim, size.out_dim)
        )
        layer = GPLayer(
            SharedIndependent(build_kernel(size.kernel, size.in_dim), output_dim=size.out_dim),
            SharedIndependentInducingVariables(InducingPoints(Z)),
            num_data=shape.num_data,
            mean_function=mean_function,
            num_latent_gps=size.out_dim,
            name=f"layer_{index}",
            verbose=False,
        )
        gpflow.set_trainable(layer.inducing_variable, settings.train_inducing_points)
        if not last:
            layer.q_sqrt.assign(layer.q_sqrt * settings.inner_q_sqrt_scale)
            inputs = None if inputs is None else np.asarray(mean_function(inputs))
            latent = latent if size.in_dim == size.out_dim else 0  # or mixed with the others
        layers.append(layer)
    return DeepGP(layers, likelihood, num_data=shape.num_data, seed=seed, input_dim=shape.input_dim)


def _inducing_inputs(inputs: Numbers, latent: int, num_inducing: int, seed: int) -> Numbers:
    """Centres of k-means; of latent variables, draws of N(0, 1) (Salimbeni et al. 2019)."""
    known = inputs[:, : inputs.shape[1] - latent]
    Z = kmeans_inducing_points(known, num_inducing, seed)
    w = np.random.default_rng(seed).normal(size=(num_inducing, latent))
    return np.concatenate([Z, w.astype(Z.dtype)], axis=1)


def _latent_layer(
    settings: LatentLayerSettings, shape: TaskShape, seed: int, index: int
) -> LatentVariableLayer:
    W, dtype = settings.dim, gpflow.default_float()
    encoder = (
        RowEncoder(shape.num_data, W, seed=seed + index)
        if settings.encoder == "rows"
        else MLPEncoder(shape.input_dim + shape.output_dim, W, settings.encoder, seed=seed + index)
    )
    zero, one = np.zeros(W, dtype), np.ones(W, dtype)
    return LatentVariableLayer(_PRIORS[settings.prior](zero, one), encoder, name=f"layer_{index}")


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
