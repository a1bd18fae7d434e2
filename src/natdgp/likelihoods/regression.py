"""What kinds of noise around a number have in common: figures, CRPS, baseline."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from natdgp.lazy import check_shapes, lazy
from natdgp.likelihoods.base import MIXTURE, Figure, FloatArray, Likelihood, as_column

if TYPE_CHECKING:
    import tensorflow as tf
    from scipy import special, stats
else:
    special, stats = lazy("scipy.special"), lazy("scipy.stats")
    tf = lazy("tensorflow")

INTERVAL = (0.025, 0.975)
"""Quantiles that bound the central 95% interval."""

Nodes = tuple[FloatArray, FloatArray]
"""Values [K] and the weights [K] of a distribution over them, which sum to 1."""


class RegressionLikelihood(Likelihood):
    """Noise around f, symmetric; the target is a number, standardised."""

    scales_targets = True
    has_cdf = True
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("rmse", "target"),
        Figure("rmse_standardised", "standardised"),
        Figure("nlpd", "nats"),
        Figure("nlpd_standardised", "nats"),
        Figure("crps", "target"),
        Figure("crps_standardised", "standardised"),
        Figure("coverage_95", "share", judges=False),  # 0.95 is right, more as wrong as less
    )

    @abc.abstractmethod
    def crps(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """Continuous ranked probability score of each row and output, [n, Q]."""

    @check_shapes(*MIXTURE)
    def row_scores(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> dict[str, tf.Tensor]:
        """Log density [n]; squared error of the mean, CRPS, whether in INTERVAL: [n, Q]."""
        cdf = self.cdf(mean, var, Y)
        low, high = INTERVAL
        return {
            "log_density": self.log_density(mean, var, Y),
            "squared_error": tf.square(tf.reduce_mean(mean, axis=0) - Y),
            "crps": self.crps(mean, var, Y),
            "covered": tf.cast((cdf >= low) & (cdf <= high), mean.dtype),
        }

    def figures_from(
        self, means: Mapping[str, tf.Tensor], y_std: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Those without `standardised` in their name are in the units of y.

        RMSE, CRPS and coverage are means over outputs (RMSE: root of the mean over outputs of the
        squares); NLPD is joint over outputs, per row.
        """
        squared_error, crps, nlpd = means["squared_error"], means["crps"], -means["log_density"]
        return {
            "rmse": tf.sqrt(tf.reduce_mean(squared_error * tf.square(y_std))),
            "rmse_standardised": tf.sqrt(tf.reduce_mean(squared_error)),
            "nlpd": nlpd + tf.reduce_sum(tf.math.log(y_std)),
            "nlpd_standardised": nlpd,
            "crps": tf.reduce_mean(crps * y_std),
            "crps_standardised": tf.reduce_mean(crps),
            "coverage_95": tf.reduce_mean(means["covered"]),
        }

    @classmethod
    def check_targets(cls, Y: FloatArray, names: Sequence[str]) -> list[str]:
        """Any number will do; that it varies, the scaling sees to."""
        return []

    @classmethod
    def baseline(cls, Y_train: FloatArray, Y_test: FloatArray) -> dict[str, float]:
        """Predict a Gaussian with the training targets' mean and standard deviation."""
        return gaussian_figures(Y_train.mean(axis=0), Y_train.std(axis=0), Y_test)


def gaussian_figures(mean: FloatArray, std: FloatArray, Y: FloatArray) -> dict[str, float]:
    """RMSE, NLPD, CRPS and coverage of Gaussian predictions of Y [N, Q].

    :param mean: [N, Q] or [Q].
    :param std: likewise; 0 counts as the rounding of an exact fit.
    """
    std = np.maximum(std, np.finfo(np.float64).eps)
    z = (Y - mean) / std
    # Gneiting & Raftery (2007), equation 21.
    crps = std * (z * special.erf(z / np.sqrt(2)) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    return {
        "rmse": float(np.sqrt(np.mean(np.square(Y - mean)))),
        "nlpd": float(-np.mean(np.sum(stats.norm.logpdf(z) - np.log(std), axis=1))),
        "crps": float(np.mean(crps)),
        "coverage_95": float(np.mean(np.abs(z) <= stats.norm.ppf(INTERVAL[1]))),
    }


@check_shapes("mean: [S, n, Q]", "var: [S, n, Q]", "Y: [n, Q]", "return: [n, Q]")
def mixture_crps(
    mean: tf.Tensor,
    var: tf.Tensor,
    Y: tf.Tensor,
    squared_scale: tf.Tensor,
    noise: Nodes,
    difference: Nodes,
) -> tf.Tensor:
    """CRPS of y = f + noise, the noise a Gaussian of random variance, in closed form.

    Grimit, Gneiting, Berrocal & Johnson (2006), equation 6:
    CRPS = E|y' - Y| - 1/2 E|y' - y''|, where y' and y'' are independent draws and, inside each
    sample or pair of samples, both differences are mixtures of Gaussians, with
    E|N(m, v)| = 2 sqrt(v) phi(m / sqrt(v)) + m (2 Phi(m / sqrt(v)) - 1).

    :param mean: of f in each sample.
    :param var: of f in each sample.
    :param Y: targets.
    :param squared_scale: scalar, by which the variances of the noise are multiplied.
    :param noise: variances of the noise.
    :param difference: variances of the difference of two independent noises.
    """
    S = tf.shape(mean)[0]

    def mean_absolute(m: tf.Tensor, v: tf.Tensor, nodes: Nodes) -> tf.Tensor:
        """Mean over the nodes, sum over samples: [n, Q]."""
        values, weights = (as_column(a, like=m) for a in nodes)
        std = tf.sqrt(v + squared_scale * values)  # [K, S, n, Q]
        z = m / std
        density = tf.exp(-0.5 * tf.square(z)) / math.sqrt(2 * math.pi)
        return tf.reduce_sum(
            weights * (2 * std * density + m * tf.math.erf(z / math.sqrt(2))), axis=[0, 1]
        )

    def with_later_samples(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        m, v = mean[i + 1 :] - mean[i], var[i + 1 :] + var[i]
        return i + 1, total + mean_absolute(m, v, difference)

    _, between = tf.while_loop(
        lambda i, _: i < S - 1, with_later_samples, (tf.constant(0), tf.zeros_like(Y))
    )
    within = mean_absolute(tf.zeros_like(mean), 2 * var, difference)
    S = tf.cast(S, mean.dtype)
    return mean_absolute(Y - mean, var, noise) / S - (between + 0.5 * within) / tf.square(S)
