"""A sparse variational GP layer: GPflux's, with q(u) and precision in plain sight."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gpflow
import gpflux
import numpy as np
import tensorflow as tf
from check_shapes import check_shapes
from gpflow.functions import MeanFunction
from gpflow.inducing_variables import MultioutputInducingVariables
from gpflow.kernels import MultioutputKernel
from gpflux.sampling.sample import Sample

from natdgp.models.conditional import marginals
from natdgp.models.layers.base import Observations, Passed
from natdgp.models.noise import Draws
from natdgp.models.whitened_kl import whitened_kl
from natdgp.natgrad.parameters import lower_triangle

JITTER = {"float64": 1e-6, "float32": 1e-5}
"""Added to the diagonal of Kuu before its Cholesky; float32 resolves no less on correlated
inducing points (GPflow's default, 1e-6, is made for float64)."""


class Posterior(NamedTuple):
    """q(u) of a layer, or q(v) where u = chol(Kuu) v, as tensors."""

    q_mu: tf.Tensor
    """[M, P], the means."""
    q_sqrt: tf.Tensor
    """[P, M, M], lower-triangular square roots of the covariances."""


class GPLayer(gpflux.layers.GPLayer):
    """A drop-in for GPflux's layer, whose parts can also be computed with explicit arguments.

    Called as a Keras layer it does what GPflux's does: it gives a distribution, and in training
    it adds its loss. :meth:`posterior`, :meth:`marginals` and :meth:`kl` do the same work in plain
    sight. The layer keeps the float type that was GPflow's default when it was built, and a jitter
    of its own; later changes of GPflow's defaults do not reach it.
    """

    def __init__(
        self,
        kernel: MultioutputKernel,
        inducing_variable: MultioutputInducingVariables,
        num_data: int,
        mean_function: MeanFunction | None = None,
        *,
        num_samples: int | None = None,
        full_cov: bool = False,
        full_output_cov: bool = False,
        num_latent_gps: int | None = None,
        whiten: bool = True,
        name: str | None = None,
        verbose: bool = True,
        jitter: float | None = None,
    ) -> None:
        """:param jitter: added to the diagonal of Kuu; by default :data:`JITTER` of the float type.
        The other arguments are GPflux's.
        """
        super().__init__(
            kernel,
            inducing_variable,
            num_data,
            mean_function,
            num_samples=num_samples,
            full_cov=full_cov,
            full_output_cov=full_output_cov,
            num_latent_gps=num_latent_gps,
            whiten=whiten,
            name=name,
            verbose=verbose,
        )
        self.jitter = JITTER[self.dtype] if jitter is None else jitter

    def posterior(self) -> Posterior:
        """The layer's variational parameters, q_sqrt unpacked once; both can be differentiated."""
        return Posterior(tf.convert_to_tensor(self.q_mu), lower_triangle(self.q_sqrt))

    @check_shapes("F: [n, D]", "return[0]: [n, Q]", "return[1]: [n, Q]")
    def marginals(self, F: tf.Tensor, q: Posterior) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of the layer's outputs at each row, the mean function included.

        :param F: inputs.
        :param q: the layer's :meth:`posterior`.
        """
        with self._gpflow_defaults():
            mean, var = marginals(
                F,
                self.inducing_variable,
                self.kernel,
                *q,
                whiten=self.whiten,
                jitter=self.jitter,
            )
            return mean + self.mean_function(F), var

    def propagate_marginals(self, F: tf.Tensor, q: Posterior) -> tuple[tf.Tensor, tf.Tensor]:
        """:meth:`marginals` of inputs [S, n, D]: two tensors [S, n, Q]."""
        S, n = tf.shape(F)[0], tf.shape(F)[1]
        mean, var = self.marginals(tf.reshape(F, [S * n, F.shape[-1]]), q)
        by_sample = [S, n, mean.shape[-1]]
        return tf.reshape(mean, by_sample), tf.reshape(var, by_sample)

    def propagate(
        self,
        F: tf.Tensor,
        q: Posterior,
        draws: Draws,
        index: int,
        observations: Observations | None = None,
    ) -> Passed:
        """Samples of the layer's outputs at samples of its inputs.

        :param F: [S, n, D], or [1, n, D], which is then computed once for all S samples.
        :param q: the layer's :meth:`posterior`.
        :param draws: the standard normal numbers that samples are made of.
        :param index: the layer's, for numbers of its own.
        :param observations: of no use here.
        :returns: [S, n, Q].
        """
        mean, var = self.propagate_marginals(F, q)
        return Passed(mean + tf.sqrt(var) * draws.normal(index, mean.shape[-1], mean.dtype))

    @check_shapes("return: []")
    def kl(self, q: Posterior) -> tf.Tensor:
        """KL[q(u) || p(u)], summed over latent GPs, in nats.

        Prior densities of the kernel's parameters are no part of it.

        :param q: the layer's :meth:`posterior`.
        """
        if self.whiten:
            return whitened_kl(*q)
        with self._gpflow_defaults():
            return gpflow.kullback_leiblers.prior_kl(
                self.inducing_variable, self.kernel, *q, whiten=False
            )

    def parts(self) -> Mapping[str, Any]:
        """Kernel, mean function, inducing variable, and how u is whitened and jittered."""
        return {
            "whiten": self.whiten,
            "jitter": self.jitter,
            "kernel": self.kernel,
            "mean_function": self.mean_function,
            "inducing_variable": self.inducing_variable,
        }

    @classmethod
    def sharing(cls, layer: gpflux.layers.GPLayer) -> GPLayer:
        """A layer with the parameters of one of GPflux's, which are shared and not copied."""
        own = cls(
            layer.kernel,
            layer.inducing_variable,
            layer.num_data,
            layer.mean_function,
            num_samples=layer.num_samples,
            full_cov=layer.full_cov,
            full_output_cov=layer.full_output_cov,
            num_latent_gps=layer.q_mu.shape[1],
            whiten=layer.whiten,
            name=layer.name,
            verbose=False,
        )
        own.q_mu, own.q_sqrt = layer.q_mu, layer.q_sqrt
        return own

    def predict(
        self, inputs: tf.Tensor, *, full_cov: bool = False, full_output_cov: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As GPflux's."""
        inputs = tf.convert_to_tensor(inputs, self.dtype)
        if not (full_cov or full_output_cov):
            mean, var = self.marginals(inputs, self.posterior())
            return mean, var
        with self._gpflow_defaults():
            mean, cov = super().predict(inputs, full_cov=full_cov, full_output_cov=full_output_cov)
            return mean, cov

    def prior_kl(self) -> tf.Tensor:
        """As GPflux's: :meth:`kl` of the layer's own posterior."""
        return self.kl(self.posterior())

    def call(self, inputs: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
        """As GPflux's."""
        with self._gpflow_defaults():
            return super().call(inputs, *args, **kwargs)

    def sample(self) -> Sample:
        """As GPflux's: one function drawn from the posterior."""
        with self._gpflow_defaults():
            drawn = super().sample()
        defaults = self._gpflow_defaults

        class WithDefaults(Sample):
            def __call__(self, X: tf.Tensor) -> tf.Tensor:
                with defaults():
                    return drawn(X)

        return WithDefaults()

    @contextlib.contextmanager
    def _gpflow_defaults(self) -> Iterator[None]:
        """GPflow and GPflux, which read global defaults when called, see the layer's own here."""
        config = dataclasses.replace(
            gpflow.config.config(), float=np.dtype(self.dtype).type, jitter=self.jitter
        )
        with gpflow.config.as_context(config):
            yield
