"""Gaussian noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from natdgp.fields import Frozen, Number
from natdgp.lazy import check_shapes, lazy
from natdgp.likelihoods.base import FLOOR, MIXTURE, normal_cdf
from natdgp.likelihoods.regression import RegressionLikelihood, mixture_crps

if TYPE_CHECKING:
    import gpflow
    import tensorflow as tf
else:
    gpflow = lazy("gpflow")
    tf = lazy("tensorflow")


class GaussianLikelihood(RegressionLikelihood):
    """y = f + N(0, variance)."""

    @classmethod
    def wraps(cls, likelihood: gpflow.likelihoods.Likelihood) -> bool:
        """GPflow's Gaussian, unless its noise is a function of the inputs."""
        return type(likelihood) is gpflow.likelihoods.Gaussian and isinstance(
            likelihood.scale if likelihood.variance is None else likelihood.variance,
            gpflow.Parameter,
        )

    def _variance(self, like: tf.Tensor) -> tf.Tensor:
        variance, scale = self.gpflow.variance, self.gpflow.scale  # GPflow has one of them
        return tf.cast(tf.square(scale) if variance is None else variance, like.dtype)

    @check_shapes(*MIXTURE, "return: [S, n]")
    def expected_log_density(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """log N(y; mean, variance) - var / (2 variance)."""
        variance = self._variance(like=mean)
        return tf.reduce_sum(
            -0.5 * np.log(2 * np.pi)
            - 0.5 * tf.math.log(variance)
            - 0.5 * ((Y - mean) ** 2 + var) / variance,
            axis=-1,
        )

    @check_shapes(*MIXTURE, "return: [S, n]")
    def log_density_by_sample(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """log N(y; mean, var + variance)."""
        y_var = var + self._variance(like=mean)
        logs = -0.5 * (np.log(2 * np.pi) + tf.math.log(y_var) + tf.square(mean - Y) / y_var)
        return tf.reduce_sum(logs, axis=-1)

    def moments_by_sample(self, mean: tf.Tensor, var: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """mean and var + variance."""
        return mean, var + self._variance(like=mean)

    @check_shapes(*MIXTURE, "return: [n, Q]")
    def cdf(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """Mean over samples of Phi((y - mean) / sqrt(var + variance))."""
        z = (Y - mean) / tf.sqrt(var + self._variance(like=mean))
        return tf.reduce_mean(normal_cdf(z), axis=0)

    @check_shapes(*MIXTURE, "return: [n, Q]")
    def crps(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """Of a mixture of Gaussians, in closed form."""
        one = np.ones(1)
        return mixture_crps(
            mean, var, Y, self._variance(like=mean), noise=(one, one), difference=(2 * one, one)
        )


class GaussianSettings(Frozen):
    """Gaussian noise."""

    name: Literal["gaussian"] = "gaussian"
    variance: Annotated[Number, Field(gt=FLOOR)] = 0.1
    """Initial noise variance, in units of the standardised target."""

    likelihood: ClassVar[type[GaussianLikelihood]] = GaussianLikelihood

    def build(self) -> GaussianLikelihood:
        """In GPflow's default float type."""
        return GaussianLikelihood(
            gpflow.likelihoods.Gaussian(self.variance, variance_lower_bound=FLOOR)
        )
