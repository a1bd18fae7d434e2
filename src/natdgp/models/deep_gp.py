"""A deep GP (Damianou & Lawrence 2013) and its doubly stochastic bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gpflow
import gpflux
import tensorflow as tf
from check_shapes import check_shapes

from natdgp.likelihoods.base import Likelihood
from natdgp.likelihoods.registry import likelihood_of
from natdgp.models.layers.base import Layer, Observations
from natdgp.models.layers.gp import GPLayer, Posterior
from natdgp.models.layers.latent import LatentVariableLayer
from natdgp.models.layers.own import own_layer
from natdgp.models.noise import Draws, SamplingNoise, Stream


class DeepGP(tf.Module):
    """f(x) = f_L(... f_1(x)), each f_l a sparse GP, and a likelihood p(y | f).

    Layers before the last may also join latent variables w to their inputs, of which each row has
    its own (Salimbeni et al. 2019).

    Everything random is an argument: there is no sampling outside of known positions.
    """

    def __init__(
        self,
        f_layers: Sequence[Layer | gpflux.layers.GPLayer | gpflux.layers.LatentVariableLayer],
        likelihood: Likelihood | gpflow.likelihoods.Likelihood,
        *,
        num_data: int,
        seed: int,
        input_dim: int | None = None,
    ) -> None:
        """:param f_layers: first to last, the last a GP; natdgp's, or GPflux's of the same names,
            whose parameters are then shared.
        :param likelihood: p(y | f) of the last layer; natdgp's, or any of GPflow's.
        :param num_data: N, the number of training rows.
        :param seed: of the sampling noise, any non-negative integer.
        :param input_dim: D; by default the first layer's, if it is a GP.
        :raises ValueError: if the last layer is no GP.
        """
        super().__init__(name="deep_gp")
        self.f_layers = [own_layer(layer) for layer in f_layers]
        if not isinstance(self.f_layers[-1], GPLayer):
            raise ValueError(
                f"the last layer is a {type(self.f_layers[-1]).__name__}; end with a GPLayer"
            )
        first = self.f_layers[0]
        if input_dim is None and isinstance(first, GPLayer):
            input_dim = first.inducing_variable.shape[1]
        self.input_dim = input_dim
        known = isinstance(likelihood, Likelihood)
        self.likelihood = likelihood if known else likelihood_of(likelihood)
        self.gpflow_likelihood = self.likelihood.gpflow  # whose parameters TensorFlow finds here
        self.num_data = num_data
        self.noise = SamplingNoise(seed)

    @property
    def gp_layers(self) -> list[GPLayer]:
        """The layers with a q(u), first to last."""
        return [layer for layer in self.f_layers if isinstance(layer, GPLayer)]

    @property
    def latent_layers(self) -> list[LatentVariableLayer]:
        """The layers that join latent variables of rows, first to last."""
        return [layer for layer in self.f_layers if isinstance(layer, LatentVariableLayer)]

    @property
    def dtype(self) -> tf.DType:
        """The float type of all parameters."""
        return self.f_layers[-1].q_mu.dtype

    def posteriors(self) -> tuple[Posterior | None, ...]:
        """q(u) of every layer, first to last; None for one without."""
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
        posteriors: Sequence[Posterior | None] | None = None,
        weights: tf.Tensor | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The evidence lower bound of a training row, in nats, estimated on a batch.

        Salimbeni & Deisenroth 2017, equation 14, divided by N:

            1/n sum_i (E[log p(y_i | f_i^L)] - KL[q(w_i) || p(w_i)])
            - 1/N sum_l KL[q(u^l) || p(u^l)] + 1/N log p(theta)

        with E over q(f_i^L), exact for the last layer and by S samples of the layers before it; the
        second term for latent variables w_i of rows, if there are any (Dutordoir et al. 2018).

        :param X: inputs, standardised.
        :param Y: targets, as the likelihood has them.
        :param positions: the rows' places in the endless stream of examples, consecutive.
        :param num_samples: S.
        :param posteriors: q(u) of every layer; by default the layers' own.
        :param weights: [n], what each row counts; by default 1.
        :param rows: [n], which training rows these are, for layers that ask.
        """
        q = self.posteriors() if posteriors is None else posteriors
        draws = self.noise.at(Stream.TRAINING, positions, self.samples_per_row(num_samples))
        expected = self.row_bounds(X, Y, draws, q, rows)
        if weights is not None:
            expected *= tf.cast(weights, expected.dtype)
        return tf.reduce_mean(expected) - (self.kl(q) - self.log_prior()) / self.num_data

    @check_shapes("X: [n, D]", "Y: [n, Q]", "return: [S, n]")
    def row_bounds(
        self,
        X: tf.Tensor,
        Y: tf.Tensor,
        draws: Draws,
        posteriors: Sequence[Posterior | None] | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """E[log p(y_i | f_i^L)] - KL[q(w_i) || p(w_i)] of each row, for each sample, in nats.

        :param X: inputs, standardised.
        :param Y: targets, as the likelihood has them.
        :param draws: what the layers' samples are made of.
        :param posteriors: q(u) of every layer; by default the layers' own.
        :param rows: [n], which training rows these are, for layers that ask.
        """
        q = self.posteriors() if posteriors is None else posteriors
        F, local_kls = self._propagate(X, draws, q, Observations(X, Y, rows))
        mean, var = self.f_layers[-1].propagate_marginals(F, q[-1])
        bounds = self.likelihood.expected_log_density(mean, var, Y)
        for local_kl in local_kls:
            bounds -= local_kl
        return bounds

    @check_shapes("X: [n, D]", "return[0]: [S, n, P]", "return[1]: [S, n, P]")
    def f_marginals(
        self, X: tf.Tensor, draws: Draws, posteriors: Sequence[Posterior | None] | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of the last layer's latent GPs for each sample of the layers before.

        Latent variables are drawn from their prior.

        :param X: inputs, standardised.
        :param draws: what the layers' samples are made of.
        :param posteriors: q(u) of every layer; by default the layers' own.
        """
        q = self.posteriors() if posteriors is None else posteriors
        F, _ = self._propagate(X, draws, q)
        f: tuple[tf.Tensor, tf.Tensor] = self.f_layers[-1].propagate_marginals(F, q[-1])
        return f

    def _propagate(
        self,
        X: tf.Tensor,
        draws: Draws,
        posteriors: Sequence[Posterior | None],
        observations: Observations | None = None,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Samples of the last layer's inputs, [S, n, D_L], and KL[q(w) || p(w)] by layer."""
        # [1, n, D]: the first layer is computed once for all samples.
        F, local_kls = tf.convert_to_tensor(X)[None], list[tf.Tensor]()
        for index, layer in enumerate(self.f_layers[:-1]):
            F, local_kl = layer.propagate(F, posteriors[index], draws, index, observations)
            if local_kl is not None:
                local_kls.append(local_kl)
        return F, local_kls

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

    def kl(self, posteriors: Sequence[Posterior | None] | None = None) -> tf.Tensor:
        """Sum over layers of KL[q(u) || p(u)]; scalar, in nats."""
        q = self.posteriors() if posteriors is None else posteriors
        pairs = zip(self.f_layers, q, strict=True)
        return _total([layer.kl(one) for layer, one in pairs if one is not None])

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
            yield from (one for one in layer.parts().values() if isinstance(one, gpflow.Module))


def _total(terms: Sequence[tf.Tensor]) -> tf.Tensor | float:
    # TensorFlow adds three terms and more in an order that scheduling decides.
    return tf.reduce_sum(tf.stack(terms)) if terms else 0.0
