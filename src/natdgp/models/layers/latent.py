"""Latent variables of rows: GPflux's layer, with draws and local KL in plain sight.

A variable w ~ p(w) of its own for each row, which the layers that follow see beside the row's
inputs, makes p(y | x) = integral of p(y | x, w) p(w) dw as skewed, heavy-tailed or many-peaked as
the data are (Dutordoir, Salimbeni, Hensman & Deisenroth 2018, arXiv 1810.12750, where such a layer
is the first; Salimbeni, Dutordoir, Hensman & Deisenroth 2019, arXiv 1905.05435).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gpflux
import tensorflow as tf
import tensorflow_probability as tfp
from check_shapes import check_shapes

from natdgp.likelihoods.base import normal_cdf
from natdgp.models.encoders import RowEncoder
from natdgp.models.layers.base import Observations, Passed
from natdgp.models.noise import Draws

LayerWithObservations = gpflux.layers.LayerWithObservations


class LatentVariableLayer(gpflux.layers.LatentVariableLayer):
    """A drop-in for GPflux's layer, whose draws can also be explicit arguments.

    In training w is drawn from q(w | x, y), whose parameters an encoder gives and whose family is
    the prior's, and KL[q || p] of each row is a part of the bound; in prediction w is drawn from
    the prior. The compositor joins w and the layer's inputs. Called as a Keras layer it does what
    GPflux's does, but that a KL is summed over the dimensions of w where the prior is a batch of
    scalars, such as `Normal([0., 0.], 1.)`; GPflux takes their mean.
    """

    def __init__(
        self,
        prior: tfp.distributions.Distribution,
        encoder: tf.keras.layers.Layer,
        compositor: tf.keras.layers.Layer | None = None,
        name: str | None = None,
    ) -> None:
        """:param prior: p(w), factorised over the W dimensions of w: a vector-valued distribution
            or a batch of W scalars.
        :param encoder: gives the parameters of q(w | x, y), in the order of the constructor of the
            prior's class: called with [n, D + Q], inputs beside targets; or, if it is a
            :class:`natdgp.models.encoders.RowEncoder`, with the numbers of the rows.
        :param compositor: joins [layer inputs, w]; by default beside each other.
        :param name: of the layer.
        :raises TypeError: for a prior that is no distribution of TensorFlow Probability.
        :raises ValueError: for one that is not a vector, or has no density.
        """
        if not isinstance(prior, tfp.distributions.Distribution):
            raise TypeError(
                f"prior is a {type(prior).__name__}; give a distribution of TensorFlow "
                "Probability, such as MultivariateNormalDiag"
            )
        self.latent_dim = _dimension_of(prior)
        """W."""
        super().__init__(prior, encoder, compositor, name)

    @property
    def is_amortised(self) -> bool:
        """Whether q(w | x, y) is known of rows that were not trained on."""
        return not isinstance(self.encoder, RowEncoder)

    def posterior(self) -> None:
        """There is no q(u)."""
        return

    def kl(self, q: None) -> float:
        """0: what this layer adds to the bound is a part of each row's."""
        return 0.0

    def propagate(
        self,
        F: tf.Tensor,
        q: None,
        draws: Draws,
        index: int,
        observations: Observations | None = None,
    ) -> Passed:
        """Join samples of w to samples of the layer's inputs.

        :param F: [S, n, D], or [1, n, D], to which S samples of w are joined.
        :param q: None.
        :param draws: the standard normal numbers that w is made of.
        :param index: the layer's, for numbers of its own.
        :param observations: the rows, in training; None draws w from the prior.
        :returns: [S, n, D + W] by the default compositor, and KL[q || p] of each row if there are
            observations.
        """
        normal = draws.normal(index, self.latent_dim, F.dtype)  # [S, n or 1, W]
        if observations is None:
            w, local_kl = from_normal(self.prior, normal), None
        else:
            posteriors = self._posteriors_of(observations)
            w = from_normal(posteriors, normal)
            local_kl = self._local_kls(posteriors, w)
        by_row = tf.broadcast_dynamic_shape(tf.shape(F)[:-1], tf.shape(w)[:-1])
        F = tf.broadcast_to(F, tf.concat([by_row, [F.shape[-1]]], axis=0))
        w = tf.broadcast_to(w, tf.concat([by_row, [self.latent_dim]], axis=0))
        return Passed(self.compositor([F, w]), local_kl)

    def _posteriors_of(self, observations: Observations) -> tfp.distributions.Distribution:
        if self.is_amortised:
            pair = [observations.X, observations.Y]
            return self._inference_posteriors(pair, training=True)
        if observations.rows is None:
            raise ValueError(
                f"{self.name} has an encoder with parameters for each training row, but the batch "
                "does not say which rows it holds: train on natdgp's datasets, whose batches do"
            )
        return self.distribution_class(*self.encoder(observations.rows), allow_nan_stats=False)

    def _local_kls(
        self, posteriors: tfp.distributions.Distribution, samples: tf.Tensor | None = None
    ) -> tf.Tensor:
        """KL[q(w) || p(w)] of each row, [n]; by samples of w, [S, n], where there is no formula."""
        try:
            kl = posteriors.kl_divergence(self.prior)
        except NotImplementedError:
            samples = posteriors.sample() if samples is None else samples
            kl = posteriors.log_prob(samples) - self.prior.log_prob(samples)
        return kl if self.prior.event_shape.rank == 1 else tf.reduce_sum(kl, axis=-1)

    def parts(self) -> Mapping[str, Any]:
        """Prior, encoder and compositor."""
        return {
            "prior": self.prior,
            "encoder": self.encoder,
            "compositor": type(self.compositor).__name__,
        }


def _dimension_of(prior: tfp.distributions.Distribution) -> int:
    shape = tf.TensorShape(prior.batch_shape).concatenate(prior.event_shape)
    if shape.rank != 1 or shape.num_elements() is None:
        raise ValueError(
            f"prior has the shape {shape}; give a vector of W numbers, such as "
            "MultivariateNormalDiag(tf.zeros(W), tf.ones(W))"
        )
    return int(shape.num_elements())


@check_shapes("normal: [S, n_or_1, W]", "return: [S, n, W]")
def from_normal(distribution: tfp.distributions.Distribution, normal: tf.Tensor) -> tf.Tensor:
    """Draws from a factorised distribution, made of standard normal numbers.

    A Gaussian's are mean + std x normal, any other's its quantiles of Phi(normal); both have
    derivatives by its parameters.

    :param distribution: of w, with a batch of rows or for all of them.
    :param normal: the numbers.
    :raises ValueError: for a distribution whose quantiles are not known.
    """
    if isinstance(
        distribution, tfp.distributions.Normal | tfp.distributions.MultivariateNormalDiag
    ):
        return distribution.mean() + distribution.stddev() * normal
    if isinstance(distribution, tfp.distributions.Independent):
        return from_normal(distribution.distribution, normal)
    try:
        return distribution.quantile(normal_cdf(normal))
    except NotImplementedError as error:
        raise ValueError(
            f"draws of {type(distribution).__name__} are not a function of normal numbers, as its "
            "quantiles are not known; use Normal, MultivariateNormalDiag, Laplace, Logistic, "
            "LogNormal or Uniform"
        ) from error
