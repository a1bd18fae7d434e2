"""GPflux's deep GP with layers that draw stateless noise and share the first layer's work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import gpflow
import gpflux
import tensorflow as tf
import tensorflow_probability as tfp

from natdgp.models.conditional import whitened_marginals
from natdgp.models.noise import SamplingNoise
from natdgp.models.whitened_kl import whitened_kl
from natdgp.natgrad.parameters import lower_triangle


class GPLayer(gpflux.layers.GPLayer):
    """A GPflux layer whose samples are a pure function of (seed, layer, position).

    The first layer samples each of its n rows S times, so that S samples cost one evaluation of
    it; later layers see S * n rows, sample-major.
    """

    def __init__(self, *args: Any, index: int, noise: SamplingNoise, **kwargs: Any) -> None:
        """:param index: the layer's place in the deep GP, from 0.
        :param noise: where samples come from; the other arguments are GPflux's.
        """
        super().__init__(*args, **kwargs)
        self._index = index
        self._noise = noise
        self._held: tf.Tensor | None = None

    @contextlib.contextmanager
    def holding_q_sqrt(self) -> Iterator[tf.Tensor]:
        """q_sqrt, [P, M, M], unpacked once: what is computed inside is computed of this tensor.

        Its gradient is that of the matrix, where the gradient of the parameter would be packed.
        """
        self._held = self._q_sqrt_matrix()
        try:
            yield self._held
        finally:
            self._held = None

    def _q_sqrt_matrix(self) -> tf.Tensor:
        return lower_triangle(self.q_sqrt) if self._held is None else self._held

    def predict(
        self, inputs: tf.Tensor, *, full_cov: bool = False, full_output_cov: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As GPflux's; marginals are computed by :func:`whitened_marginals`."""
        if full_cov or full_output_cov:
            mean, var = super().predict(inputs, full_cov=full_cov, full_output_cov=full_output_cov)
            return mean, var
        mean, var = whitened_marginals(
            inputs,
            self.inducing_variable,
            self.kernel,
            tf.convert_to_tensor(self.q_mu),
            self._q_sqrt_matrix(),
        )
        return mean + self.mean_function(inputs), var

    def prior_kl(self) -> tf.Tensor:
        """KL[q(u) || p(u)], summed over latent GPs; scalar, in nats."""
        return whitened_kl(tf.convert_to_tensor(self.q_mu), self._q_sqrt_matrix())

    def _convert_to_tensor_fn(self, distribution: tfp.distributions.Distribution) -> tf.Tensor:
        mean, std = distribution.loc, distribution.scale.diag  # [n, Q], or [S * n, Q] further in
        noise = self._noise.normal(self._index, like=mean)  # [S, n, Q]
        if self._index > 0:
            noise = tf.reshape(noise, tf.shape(mean))
        return tf.reshape(mean + std * noise, [-1, mean.shape[-1]])


class DeepGP(gpflux.models.DeepGP):
    """A deep GP (Damianou & Lawrence 2013; doubly stochastic, Salimbeni & Deisenroth 2017)."""

    def __init__(
        self,
        layers: Sequence[GPLayer],
        likelihood: gpflow.likelihoods.Likelihood,
        *,
        noise: SamplingNoise,
        input_dim: int,
        target_dim: int,
        num_data: int,
    ) -> None:
        """:param layers: first to last.
        :param likelihood: p(y | f) of the last layer.
        :param noise: what the layers draw from.
        :param input_dim: D.
        :param target_dim: Q.
        :param num_data: N, the number of training rows.
        """
        super().__init__(
            list(layers),
            likelihood,
            input_dim=input_dim,
            target_dim=target_dim,
            num_data=num_data,
        )
        self.noise = noise

    @property
    def likelihood(self) -> gpflow.likelihoods.Likelihood:
        """p(y | f)."""
        return self.likelihood_layer.likelihood

    def samples_per_row(self, wanted: int) -> int:
        """S that is drawn when `wanted` are asked for: one layer is exact without sampling."""
        return wanted if len(self.f_layers) > 1 else 1

    def predict_f_samples(self, X: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of f for each Monte-Carlo sample of the inner layers.

        S and the samples are those of the noise's draw under way.

        :param X: [n, D], standardised.
        :returns: two tensors [S, n, Q].
        """
        mean, var = self.predict_f(X)
        by_sample = [-1, tf.shape(X)[0], mean.shape[-1]]
        return tf.reshape(mean, by_sample), tf.reshape(var, by_sample)

    def prior_kl_per_datum(self) -> tf.Tensor:
        """Sum over layers of KL[q(u) || p(u)], divided by N; scalar, in nats."""
        return tf.add_n([layer.prior_kl() for layer in self.f_layers]) / self.num_data
