"""A deep GP (Damianou & Lawrence 2013) and its doubly stochastic bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gpflow
import tensorflow as tf
from check_shapes import check_shapes

from natdgp.likelihoods.base import Likelihood
from natdgp.likelihoods.registry import likelihood_of
from natdgp.models.layers.gp import GPLayer, Posterior
from natdgp.models.noise import Draws, SamplingNoise, Stream


class DeepGP(tf.Module):
    """f(x) = f_L(... f_1(x)), each f_l a sparse GP, and a likelihood p(y | f).

    Everything random is an argument: there is no sampling outside of known positions.
    """

    def __init__(
        self,
        f_layers: Sequence[GPLayer],
        likelihood: Likelihood | gpflow.likelihoods.Likelihood,
        *,
        num_data: int,
        seed: int,
    ) -> None:
        """:param f_layers: first to last.
        :param likelihood: p(y | f) of the last layer; natdgp's, or any of GPflow's.
        :param num_data: N, the number of training rows.
        :param seed: of the sampling noise, any non-negative integer.
        """
        super().__init__(name="deep_gp")
        self.f_layers = list(f_layers)
        known = isinstance(likelihood, Likelihood)
        self.likelihood = likelihood if known else likelihood_of(likelihood)
        self.gpflow_likelihood = self.likelihood.gpflow  # whose parameters TensorFlow finds here
        self.num_data = num_data
        self.noise = SamplingNoise(seed)

    def posteriors(self) -> tuple[Posterior, ...]:
        """q(u) of every layer, first to last."""
        return tuple(layer.posterior() for layer in self.f_layers)

    def samples_per_row(self, wanted: int) -> int:
        """S that is drawn when `wanted` are asked for: one layer is exact without sampling."""
        return wanted if len(self.f_layers) > 1 else 1

    @check_shapes("X: [n, D]", "Y: [n, Q]", "positions: [n]", "return: []")
    def elbo(
        self,
        X: tf.Tensor,
        Y: tf.Tensor,
        positions: tf.Tensor,
        num_samples: int,
        posteriors: Sequence[Posterior] | None = None,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The evidence lower bound of a training row, in nats, estimated on a batch.

        Salimbeni & Deisenroth 2017, equation 14, divided by N:

            1/n sum_i E[log p(y_i | f_i^L)] - 1/N sum_l KL[q(u^l) || p(u^l)] + 1/N log p(theta)

        with E over q(f_i^L), exact for the last layer and by S samples of the layers before it.

        :param X: inputs, standardised.
        :param Y: targets, as the likelihood has them.
        :param positions: the rows' places in the endless stream of examples, consecutive.
        :param num_samples: S.
        :param posteriors: q(u) of every layer; by default the layers' own.
        :param weights: [n], what each row counts; by default 1.
        """
        q = self.posteriors() if posteriors is None else posteriors
        draws = self.noise.at(Stream.TRAINING, positions, self.samples_per_row(num_samples))
        mean, var = self.f_marginals(X, draws, q)
        expected = self.likelihood.expected_log_density(mean, var, Y)  # [S, n]
        if weights is not None:
            expected *= tf.cast(weights, expected.dtype)
        return tf.reduce_mean(expected) - (self.kl(q) - self.log_prior()) / self.num_data

    @check_shapes("X: [n, D]", "return[0]: [S, n, P]", "return[1]: [S, n, P]")
    def f_marginals(
        self, X: tf.Tensor, draws: Draws, posteriors: Sequence[Posterior] | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of the last layer's latent GPs for each sample of the layers before.

        :param X: inputs, standardised.
        :param draws: what the layers' samples are made of.
        :param posteriors: q(u) of every layer; by default the layers' own.
        """
        q = self.posteriors() if posteriors is None else posteriors
        F = X[None]  # [1, n, D]: the first layer is computed once for all samples
        for index, layer in enumerate(self.f_layers[:-1]):
            F = layer.propagate(F, q[index], draws, index)
        f: tuple[tf.Tensor, tf.Tensor] = self.f_layers[-1].propagate_marginals(F, q[-1])
        return f

    def predictive_marginals(
        self, X: tf.Tensor, num_samples: int, stream: Stream = Stream.PREDICTION
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The same from S samples that all rows share: [S, n, P], a function of each row alone.

        :param X: [n, D], standardised.
        :param num_samples: S.
        :param stream: what the samples are for.
        """
        draws = self.noise.shared(stream, self.samples_per_row(num_samples))
        f: tuple[tf.Tensor, tf.Tensor] = self.f_marginals(X, draws)
        return f

    def kl(self, posteriors: Sequence[Posterior] | None = None) -> tf.Tensor:
        """Sum over layers of KL[q(u) || p(u)]; scalar, in nats."""
        q = self.posteriors() if posteriors is None else posteriors
        return _total([layer.kl(one) for layer, one in zip(self.f_layers, q, strict=True)])

    def log_prior(self) -> tf.Tensor | float:
        """Log density of the priors that parameters were given, if any; scalar, in nats."""
        parameters = [
            one
            for module in (*self._parts_of_layers(), self.gpflow_likelihood)
            for one in module.trainable_parameters
        ]
        return _total([one.log_prior_density() for one in parameters if one.prior is not None])

    def _parts_of_layers(self) -> Iterator[gpflow.Module]:
        for layer in self.f_layers:
            yield from (layer.kernel, layer.mean_function, layer.inducing_variable)


def _total(terms: Sequence[tf.Tensor]) -> tf.Tensor | float:
    # TensorFlow adds three terms and more in an order that scheduling decides.
    return tf.reduce_sum(tf.stack(terms)) if terms else 0.0
