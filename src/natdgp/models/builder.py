"""Builds a deep GP from settings, as in Salimbeni & Deisenroth 2017."""

from __future__ import annotations

from dataclasses import dataclass

import gpflow
import numpy as np
from gpflow.inducing_variables import InducingPoints, SharedIndependentInducingVariables
from gpflow.kernels import SharedIndependent

from natdgp.data.prepare import Numbers
from natdgp.models.deep_gp import DeepGP, GPLayer
from natdgp.models.inducing import kmeans_inducing_points
from natdgp.models.kernels import Matern32, Matern52, SquaredExponential
from natdgp.models.noise import SamplingNoise
from natdgp.models.settings import (
    GaussianSettings,
    KernelSettings,
    LikelihoodSettings,
    ModelSettings,
)

MAX_DEFAULT_WIDTH = 30
"""Inner layers are no wider than this by default (Salimbeni & Deisenroth 2017, section 5)."""

JITTER = {"float64": 1e-6, "float32": 1e-5}
"""Added to the diagonal of Kuu before its Cholesky; float32 resolves no less on correlated
inducing points (GPflow's default, 1e-6, is made for float64)."""

_KERNELS = {
    "squared_exponential": SquaredExponential,
    "matern32": Matern32,
    "matern52": Matern52,
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


def output_dims(settings: ModelSettings, shape: TaskShape) -> tuple[int, ...]:
    """The output dimension of every layer, first to last."""
    width = settings.hidden_width or min(shape.input_dim, MAX_DEFAULT_WIDTH)
    return (*(width,) * (settings.layers - 1), shape.output_dim)


def build_deep_gp(
    settings: ModelSettings, shape: TaskShape, *, seed: int, X: Numbers | None = None
) -> DeepGP:
    """Build a deep GP in the settings' float type, which becomes GPflow's default.

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
    gpflow.config.set_default_float(np.dtype(settings.dtype).type)
    gpflow.config.set_default_jitter(JITTER[settings.dtype])
    noise = SamplingNoise(seed)
    inputs = X  # the layer's inputs as far as mean functions alone carry them

    layers = []
    in_dim = shape.input_dim
    for index, out_dim in enumerate(output_dims(settings, shape)):
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
            SharedIndependent(_kernel(settings.kernel, in_dim), output_dim=out_dim),
            SharedIndependentInducingVariables(InducingPoints(Z)),
            num_data=shape.num_data,
            mean_function=mean_function,
            num_latent_gps=out_dim,
            index=index,
            noise=noise,
            name=f"layer_{index}",
            verbose=False,
        )
        gpflow.set_trainable(layer.inducing_variable, settings.train_inducing_points)
        if not last:
            layer.q_sqrt.assign(layer.q_sqrt * settings.inner_q_sqrt_scale)
            inputs = None if inputs is None else np.asarray(mean_function(inputs))
        layers.append(layer)
        in_dim = out_dim

    return DeepGP(
        layers,
        _likelihood(settings.likelihood),
        noise=noise,
        input_dim=shape.input_dim,
        target_dim=shape.output_dim,
        num_data=shape.num_data,
    )


def _kernel(settings: KernelSettings, in_dim: int) -> gpflow.kernels.Kernel:
    lengthscale = settings.lengthscale or float(np.sqrt(in_dim))
    return _KERNELS[settings.name](
        variance=settings.variance,
        lengthscales=np.full(in_dim, lengthscale) if settings.ard else lengthscale,
    )


def _likelihood(settings: LikelihoodSettings) -> gpflow.likelihoods.Likelihood:
    if isinstance(settings, GaussianSettings):
        return gpflow.likelihoods.Gaussian(settings.variance)
    return gpflow.likelihoods.StudentT(scale=settings.scale, df=settings.degrees_of_freedom)


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
