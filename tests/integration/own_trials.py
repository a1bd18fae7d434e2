"""Trials whose `build_model` is their own; this file is also copied beside experiments."""

from __future__ import annotations

from typing import Any

import gpflow
import gpflux
import tensorflow as tf
from gpflow.inducing_variables import InducingPoints, SharedIndependentInducingVariables
from gpflow.kernels import SharedIndependent
from gpflux.architectures import Config, build_constant_input_dim_deep_gp

from natdgp.determined import DeepGPTrial
from natdgp.likelihoods.registry import build_likelihood
from natdgp.models.deep_gp import DeepGP
from natdgp.models.layers.gp import GPLayer
from natdgp.training.assembly import build_optimizers
from natdgp.training.natgrad_model import NatGradWrapper


class OtherLayers(DeepGPTrial):
    """natdgp's model with a kernel, a width and a number of inducing points of its own."""

    def build_model(self) -> tf.keras.Model:
        task, settings = self.task, self.settings
        Z = task.prepared.train.X[:6]
        layers = []
        for width in (2, 1):
            layers.append(
                GPLayer(
                    SharedIndependent(gpflow.kernels.Matern12(), output_dim=width),
                    SharedIndependentInducingVariables(InducingPoints(Z)),
                    num_data=task.record.num_data,
                    mean_function=gpflow.mean_functions.Zero(width),
                    num_latent_gps=width,
                    name=f"of_width_{width}",
                    verbose=False,
                )
            )
            Z = Z[:, :width]
        deep_gp = DeepGP(
            layers,
            build_likelihood(settings.model.likelihood, settings.model.dtype),
            num_data=task.record.num_data,
            seed=task.seed,
        )
        model = self.context.wrap_model(task.model(deep_gp))
        model.compile(build_optimizers(settings, model))
        return model


def _gpfluxs(trial: DeepGPTrial, layers: int) -> gpflux.models.DeepGP:
    config = Config(
        num_inducing=5, inner_layer_qsqrt_factor=1e-3, likelihood_noise_variance=0.1, whiten=True
    )
    return build_constant_input_dim_deep_gp(trial.task.prepared.train.X, layers, config)


class Wrapped(DeepGPTrial):
    """A model of GPflux's, wrapped."""

    def build_model(self) -> tf.keras.Model:
        model = self.context.wrap_model(NatGradWrapper(_gpfluxs(self, 2).as_training_model()))
        model.compile(tf.keras.optimizers.Adam(0.01), gamma=0.05)
        return model


class Stock(DeepGPTrial):
    """A model of GPflux's that Adam trains alone."""

    def build_model(self) -> tf.keras.Model:
        model = self.context.wrap_model(_gpfluxs(self, 1).as_training_model())
        model.compile(tf.keras.optimizers.Adam(0.01))
        return model


class GPfluxsNaturalGradients(DeepGPTrial):
    """GPflux's own model of natural gradients."""

    def build_model(self) -> tf.keras.Model:
        stock: Any = _gpfluxs(self, 1).as_training_model(gpflux.optimization.NatGradModel)
        stock.natgrad_layers = True
        model = self.context.wrap_model(stock)
        model.compile([gpflow.optimizers.NaturalGradient(0.1), tf.keras.optimizers.Adam(0.01)])
        return model
