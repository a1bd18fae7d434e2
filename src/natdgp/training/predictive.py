"""Figures of the predictive density that people select models by, summed exactly over rows.

The predictive density of a row is a mixture over S Monte-Carlo samples of the inner layers,
p(y) = 1/S sum_s integral p(y | f) N(f; m_s, v_s) df, with m and v of shape [S, n, Q].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Protocol

import gpflow
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from check_shapes import check_shapes
from scipy.special import logsumexp

from natdgp.models.deep_gp import DeepGP

INTERVAL = (0.025, 0.975)
"""Quantiles that bound the central 95% interval."""

STUDENT_T_DRAWS = 200
"""Draws behind a Student-t CRPS, which has no closed form for a mixture; divided over S samples."""


class Predictive(Protocol):
    """What a likelihood adds to the mixture: its density, CDF and CRPS."""

    def log_density(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """log p(y) of each row, [n], summed over outputs inside each sample."""

    def cdf(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """P(y' <= y) of each row and output, [n, Q]."""

    def crps(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """Continuous ranked probability score of each row and output, [n, Q]."""


@check_shapes("mean: [S, n, Q]", "var: [S, n, Q]", "Y: [n, Q]", "return: [n]")
def mixture_log_density(
    likelihood: gpflow.likelihoods.Likelihood, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor
) -> tf.Tensor:
    """Log of the mean over S samples of the predictive density (never the mean of logs).

    :param likelihood: p(y | f).
    :param mean: of f.
    :param var: of f.
    :param Y: targets, in the units of f.
    :returns: log p(y) of each row, summed over outputs inside each sample.
    """
    S, n, Q = tf.unstack(tf.shape(mean))
    flat = [S * n, Q]
    logs = likelihood.predict_log_density(
        None, tf.reshape(mean, flat), tf.reshape(var, flat), tf.tile(Y, [S, 1])
    )
    return _log_mean(tf.reshape(logs, [S, n]))


@check_shapes("mean: [S, n, Q]", "var: [S, n, Q]", "Y: [n, Q]", "return: [n, Q]")
def gaussian_mixture_crps(mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
    """CRPS of an equally weighted Gaussian mixture, in closed form.

    Grimit, Gneiting, Berrocal & Johnson (2006), equation 6:
    CRPS = mean_i A(y - m_i, v_i) - 1/2 mean_ij A(m_i - m_j, v_i + v_j), where
    A(m, v) = E|N(m, v)| = 2 sqrt(v) phi(m / sqrt(v)) + m (2 Phi(m / sqrt(v)) - 1).

    :param mean: of y in each component.
    :param var: of y in each component.
    :param Y: targets.
    """
    against_target = tf.reduce_mean(_mean_absolute(Y - mean, var), axis=0)
    S = tf.shape(mean)[0]

    def against_component(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        spread = _mean_absolute(mean - mean[i], var + var[i])
        return i + 1, total + tf.reduce_mean(spread, axis=0)

    _, among_components = tf.while_loop(
        lambda i, _: i < S, against_component, (tf.constant(0), tf.zeros_like(Y))
    )
    return against_target - 0.5 * among_components / tf.cast(S, mean.dtype)


def _mean_absolute(mean: tf.Tensor, var: tf.Tensor) -> tf.Tensor:
    std = tf.sqrt(var)
    z = mean / std
    density = tf.exp(-0.5 * tf.square(z)) / math.sqrt(2 * math.pi)
    return 2 * std * density + mean * tf.math.erf(z / math.sqrt(2))


@check_shapes("draws: [R, n, Q]", "Y: [n, Q]", "return: [n, Q]")
def sampled_crps(draws: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
    """Fair CRPS estimate from R independent draws.

    mean_i |x_i - y| - 1 / (2 R (R - 1)) sum_ij |x_i - x_j| (Ferro 2014), the second sum from order
    statistics: sum_ij |x_i - x_j| = 2 sum_i (2 i - R - 1) x_(i), i from 1.
    """
    R = tf.cast(tf.shape(draws)[0], draws.dtype)
    ordered = tf.sort(draws, axis=0)
    weights = 2 * tf.range(1, R + 1, dtype=draws.dtype) - R - 1
    spread = tf.einsum("r,rnq->nq", weights, ordered) / (R * (R - 1))
    return tf.reduce_mean(tf.abs(draws - Y), axis=0) - spread


def _log_mean(logs: tf.Tensor) -> tf.Tensor:
    """Log of the mean over the first axis of what the logs are of."""
    S = tf.cast(tf.shape(logs)[0], logs.dtype)
    return tf.reduce_logsumexp(logs, axis=0) - tf.math.log(S)


def _normal_cdf(z: tf.Tensor) -> tf.Tensor:
    return 0.5 * tf.math.erfc(-z / math.sqrt(2))


def _as_column(values: npt.NDArray[np.float64], like: tf.Tensor) -> tf.Tensor:
    """[K] numbers as [K, 1, 1, 1]."""
    return tf.constant(values[:, None, None, None], like.dtype)


class _Gaussian:
    def __init__(self, deep_gp: DeepGP) -> None:
        self._likelihood = deep_gp.likelihood

    def log_density(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        return mixture_log_density(self._likelihood, mean, var, Y)

    def cdf(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        z = (Y - mean) / tf.sqrt(var + self._likelihood.variance)
        return tf.reduce_mean(_normal_cdf(z), axis=0)

    def crps(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        return gaussian_mixture_crps(mean, var + self._likelihood.variance, Y)


class _StudentT:
    """A Student-t is a Gaussian of random precision, t_df = N(0, 1 / w), w ~ Gamma(df/2, df/2).

    Around a Gaussian f it stays one, y ~ N(m, v + scale^2 / w), so that density and CDF are sums
    over values of w. Gauss-Hermite over f, as GPflow has it, is off by 0.03 in the CDF and by 1 in
    the log density where f varies much more than the noise.
    """

    def __init__(self, deep_gp: DeepGP) -> None:
        self._likelihood = deep_gp.likelihood
        self._noise = deep_gp.noise
        self._first_stream = len(deep_gp.f_layers)  # layers draw under 0 .. layers - 1
        self._precisions, self._log_weights = _precision_grid(float(deep_gp.likelihood.df))

    def log_density(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        z, std = self._standardised(mean, var, Y)
        log_weights = _as_column(self._log_weights, like=mean)
        logs = log_weights - 0.5 * tf.square(z) - tf.math.log(std) - 0.5 * math.log(2 * math.pi)
        by_output = tf.reduce_logsumexp(logs, axis=0)  # [S, n, Q]
        return _log_mean(tf.reduce_sum(by_output, axis=-1))

    def cdf(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        z, _ = self._standardised(mean, var, Y)
        weighted = _as_column(np.exp(self._log_weights), like=mean) * _normal_cdf(z)
        return tf.reduce_mean(tf.reduce_sum(weighted, axis=0), axis=0)

    def _standardised(
        self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(y - mean) / std and std for each precision: [points, S, n, Q]."""
        precisions = _as_column(self._precisions, like=mean)
        std = tf.sqrt(var + tf.square(self._likelihood.scale) / precisions)
        return (Y - mean) / std, std

    def crps(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        S = self._noise.num_samples
        repeats = math.ceil(STUDENT_T_DRAWS / S)
        df = float(self._likelihood.df)
        draws = []
        for repeat in range(repeats):
            stream = self._first_stream + 3 * repeat
            f = mean + tf.sqrt(var) * self._noise.normal(stream, like=Y)
            normal = self._noise.normal(stream + 1, like=Y)
            chi2 = 2 * self._noise.gamma(stream + 2, like=Y, concentration=df / 2)
            draws.append(f + self._likelihood.scale * normal * tf.sqrt(df / chi2))
        return sampled_crps(tf.concat(draws, axis=0), Y)


def _precision_grid(df: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Values of w ~ Gamma(df/2, df/2) and the logs of their weights, which sum to 1.

    The trapezoidal rule in log w, whose error falls exponentially with the spacing for this smooth
    density of width sqrt(2 / df); the grid reaches down to the precisions that explain a residual
    of 1000 scales. CDFs are right to 1e-6, log densities to 1e-4.
    """
    width = math.sqrt(2 / df)
    low, high = math.log(df / (df + 1e6)) - 14 * width, min(4.0, 8 * width)
    logs = np.linspace(low, high, math.ceil((high - low) / (0.6 * width)) + 1)
    precisions = np.exp(logs)
    log_weights = df / 2 * (logs - precisions)
    return precisions, log_weights - logsumexp(log_weights)


@functools.singledispatch
def predictive_of(likelihood: gpflow.likelihoods.Likelihood, deep_gp: DeepGP) -> Predictive:
    """Choose the figures' formulas by likelihood.

    :raises TypeError: for a likelihood whose predictive figures are not written yet.
    """
    raise TypeError(f"no predictive figures for the likelihood {type(likelihood).__name__}")


predictive_of.register(gpflow.likelihoods.Gaussian, lambda _, deep_gp: _Gaussian(deep_gp))
predictive_of.register(gpflow.likelihoods.StudentT, lambda _, deep_gp: _StudentT(deep_gp))


_SUMS = ("rows", "log_density", "expected_log_likelihood")
_SUMS_BY_OUTPUT = ("squared_error", "crps", "covered")


class PredictiveSums(tf.keras.metrics.Metric):
    """Exact sums over rows of everything the figures need, in float64.

    Batches of any size, the last one included, weigh by their rows.
    """

    def __init__(
        self,
        deep_gp: DeepGP,
        y_std: npt.NDArray[np.float64],
        total: Callable[[tf.Tensor], tf.Tensor],
    ) -> None:
        """:param deep_gp: the model whose predictions are judged.
        :param y_std: [Q], the standard deviations that targets were divided by.
        :param total: adds a tensor up over ranks.
        """
        super().__init__(name="predictive_sums", dtype=tf.float64)
        self._deep_gp = deep_gp
        self.predictive = predictive_of(deep_gp.likelihood, deep_gp)
        self._y_std = tf.constant(y_std, tf.float64)
        self._total = total
        width = len(_SUMS) + len(_SUMS_BY_OUTPUT) * len(y_std)
        self._sums = self.add_weight("sums", shape=[width], initializer="zeros", dtype=tf.float64)

    def reset_state(self) -> None:
        """Forget all rows."""
        self._sums.assign(tf.zeros_like(self._sums))

    @check_shapes("mean: [S, n, Q]", "var: [S, n, Q]", "Y: [n, Q]")
    def update_state(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> None:
        """Add a batch.

        :param mean: of f, per sample.
        :param var: of f, per sample.
        :param Y: standardised targets.
        """
        likelihood = self._deep_gp.likelihood
        S = tf.shape(mean)[0]
        flat = [-1, tf.shape(mean)[-1]]
        expected = likelihood.variational_expectations(
            None, tf.reshape(mean, flat), tf.reshape(var, flat), tf.tile(Y, [S, 1])
        )
        cdf = self.predictive.cdf(mean, var, Y)
        low, high = INTERVAL
        covered = tf.cast((cdf >= low) & (cdf <= high), tf.float64)
        by_output = (
            tf.square(tf.reduce_mean(mean, axis=0) - Y),
            self.predictive.crps(mean, var, Y),
            covered,
        )
        figures = [
            tf.cast(tf.shape(Y)[0], tf.float64),
            tf.reduce_sum(self.predictive.log_density(mean, var, Y)),
            tf.reduce_sum(expected) / tf.cast(S, expected.dtype),
            *(tf.reduce_sum(figure, axis=0) for figure in by_output),
        ]
        flat_figures = [tf.reshape(tf.cast(figure, tf.float64), [-1]) for figure in figures]
        self._sums.assign_add(tf.concat(flat_figures, axis=0))

    def result(self) -> dict[str, tf.Tensor]:
        """Figures by name; those without `standardised` in their name are in the units of y.

        RMSE, CRPS and coverage are means over outputs (RMSE: root of the mean over outputs of the
        squares); NLPD and ELBO are joint over outputs, per row, in nats.
        """
        sums = self._total(self._sums)
        rows, log_density, expected = tf.unstack(sums[: len(_SUMS)])
        by_output = tf.reshape(sums[len(_SUMS) :], [len(_SUMS_BY_OUTPUT), -1]) / rows
        squared_error, crps, covered = tf.unstack(by_output)
        y_std, log_volume = self._y_std, tf.reduce_sum(tf.math.log(self._y_std))
        nlpd = -log_density / rows
        elbo = expected / rows - tf.cast(self._deep_gp.prior_kl_per_datum(), tf.float64)
        return {
            "loss": -elbo,
            "elbo_per_datum": elbo - log_volume,
            "rmse": tf.sqrt(tf.reduce_mean(squared_error * tf.square(y_std))),
            "rmse_standardised": tf.sqrt(tf.reduce_mean(squared_error)),
            "nlpd": nlpd + log_volume,
            "nlpd_standardised": nlpd,
            "crps": tf.reduce_mean(crps * y_std),
            "crps_standardised": tf.reduce_mean(crps),
            "coverage_95": tf.reduce_mean(covered),
        }
