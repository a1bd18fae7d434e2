"""Student-t noise, for targets with outliers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from natdgp.fields import Frozen, Number
from natdgp.lazy import check_shapes, lazy
from natdgp.likelihoods.base import FLOOR, MIXTURE, FloatArray, as_column, normal_cdf
from natdgp.likelihoods.regression import Nodes, RegressionLikelihood, mixture_crps

if TYPE_CHECKING:
    import gpflow
    import tensorflow as tf
    import tensorflow_probability as tfp
    from scipy import special
else:
    gpflow = lazy("gpflow")
    special = lazy("scipy.special")
    tf = lazy("tensorflow")
    tfp = lazy("tensorflow_probability")

_SPACING: Final = 0.45
_POINTS: Final = np.exp(math.log(5e-4) + _SPACING * np.arange(66))
"""Values of c t in :func:`expected_log1p_square`, for the trapezoidal rule in log t."""
_AT_ONCE: Final = 11
"""Points that are summed in one operation: few operations, and tensors that stay in the cache."""

_CRPS_CENTRE: Final = 32.0
"""Of the map to a bounded variable in :func:`_gauss_nodes`."""


class StudentTLikelihood(RegressionLikelihood):
    """y = f + scale * t, t of df degrees of freedom.

    A Student-t is a Gaussian of random precision, t = N(0, 1 / w), w ~ Gamma(df/2, df/2). Around a
    Gaussian f it stays one, y ~ N(m, v + scale^2 / w), so that density, CDF and CRPS are sums over
    values of w. Gauss-Hermite over f, as GPflow has it, is off by 0.03 in the CDF and by 1 in
    the log density where f varies much more than the noise.
    """

    def __init__(self, likelihood: gpflow.likelihoods.StudentT) -> None:
        super().__init__(likelihood)
        self._df = float(likelihood.df)
        self._precisions, self._log_weights = _precision_grid(self._df)
        self._lowest_precision = self._precisions[0] ** 1.5 / self._precisions[1] ** 0.5
        noise = 1 / self._precisions, np.exp(self._log_weights)
        self._noise = _gauss_nodes(*noise, count=24)
        self._difference = _gauss_nodes(*_sum_of_two(*noise), count=10)

    @classmethod
    def wraps(cls, likelihood: gpflow.likelihoods.Likelihood) -> bool:
        """GPflow's Student-t of finite variance, unless its scale is a function of the inputs."""
        return (
            type(likelihood) is gpflow.likelihoods.StudentT
            and isinstance(likelihood.scale, gpflow.Parameter)
            and likelihood.df > 2
        )

    def _squared_scale(self, like: tf.Tensor) -> tf.Tensor:
        return tf.square(tf.cast(self.gpflow.scale, like.dtype))

    def _log_peak(self, squared_scale: tf.Tensor) -> tf.Tensor:
        """Log of the density of scale * t at 0."""
        df = self._df
        at_scale_1 = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
        return at_scale_1 - 0.5 * tf.math.log(squared_scale)

    @check_shapes(*MIXTURE, "return: [S, n]")
    def expected_log_density(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """log t(0) / scale - (df + 1) / 2 E log(1 + (y - f)^2 / (df scale^2)), to 1e-9 df."""
        df, squared_scale = self._df, self._squared_scale(like=mean)
        unit = df * squared_scale
        expected = expected_log1p_square((Y - mean) * tf.math.rsqrt(unit), var / unit)
        by_output = self._log_peak(squared_scale) - 0.5 * (df + 1) * expected
        return tf.reduce_sum(by_output, axis=-1)

    @check_shapes(*MIXTURE, "return: [S, n]")
    def log_density_by_sample(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """Log of the sum over precisions of Gaussian densities, right to 1e-4, or 5e-3 far out.

        Residuals beyond 1000 scales ask for precisions below the grid. There f's own variance is
        nothing, and they add the Student-t density times the share of w given y that lies below.
        """
        z, std = self._standardised(mean, var, Y)
        log_weights = as_column(self._log_weights, like=mean)
        logs = log_weights - 0.5 * tf.square(z) - tf.math.log(std) - 0.5 * math.log(2 * math.pi)
        df, squared_scale = self._df, self._squared_scale(like=mean)
        t2 = tf.square(Y - mean) / squared_scale
        below = tf.math.igamma(
            tf.constant((df + 1) / 2, mean.dtype), self._lowest_precision / 2 * (df + t2)
        )
        outlier = (
            self._log_peak(squared_scale)
            - 0.5 * (df + 1) * tf.math.log1p(t2 / df)
            + tf.math.log(tf.maximum(below, 1e-37))
        )
        by_output = tfp.math.log_add_exp(tf.reduce_logsumexp(logs, axis=0), outlier)
        return tf.reduce_sum(by_output, axis=-1)

    def moments_by_sample(self, mean: tf.Tensor, var: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """mean and var + scale^2 df / (df - 2)."""
        return mean, var + self._squared_scale(like=mean) * (self._df / (self._df - 2))

    @check_shapes(*MIXTURE, "return: [n, Q]")
    def cdf(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """Sum over precisions of Gaussian CDFs, right to 1e-6."""
        z, _ = self._standardised(mean, var, Y)
        weighted = as_column(np.exp(self._log_weights), like=mean) * normal_cdf(z)
        return tf.reduce_mean(tf.reduce_sum(weighted, axis=0), axis=0)

    @check_shapes(*MIXTURE, "return: [n, Q]")
    def crps(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """In closed form for each precision."""
        return mixture_crps(
            mean, var, Y, self._squared_scale(like=mean), self._noise, self._difference
        )

    def _standardised(
        self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(y - mean) / std and std for each precision: [K, S, n, Q]."""
        precisions = as_column(self._precisions, like=mean)
        std = tf.sqrt(var + self._squared_scale(like=mean) / precisions)
        return (Y - mean) / std, std


@check_shapes("mean: [S, n, Q]", "var: [S, n, Q]", "return: [S, n, Q]")
def expected_log1p_square(mean: tf.Tensor, var: tf.Tensor) -> tf.Tensor:
    """E log(1 + a^2) over a ~ N(mean, var), as one smooth integral.

    From log x = integral over t > 0 of (exp(-t) - exp(-t x)) / t dt, with the Gaussian's
    expectation in closed form and c = E(1 + a^2), follows
    log c + integral of exp(-c t) - r exp(-t - t r^2 mean^2) d log t, r = (1 + 2 t var)^(-1/2),
    by the trapezoidal rule, whose error falls exponentially with the spacing. What lies below its
    first point is added in closed form, to second order. The error is below 1e-9 for |mean| up to
    1e6 and var up to 5e7; beyond, where the sum stops early, below 4e-5. In float32 it is below
    4e-6, as log c is not more exact.

    Value and derivatives are sums of the same terms and are found together: differentiating the
    sum would take twice the time and many times the memory.
    """

    @tf.custom_gradient
    def value_and_gradient(mean: tf.Tensor, var: tf.Tensor) -> tuple[tf.Tensor, object]:
        square = tf.square(mean)
        one_over_c = 1 / (1 + square + var)
        scaled_var = 2 * var
        sums = [tf.zeros_like(mean)] * 3
        for start in range(0, len(_POINTS), _AT_ONCE):
            t = as_column(_POINTS[start : start + _AT_ONCE], like=mean) * one_over_c
            r = tf.math.rsqrt(1 + scaled_var * t)
            t_r2 = t * r * r
            term = r * tf.exp(-(t + square * t_r2))
            for index in range(3):
                sums[index] += tf.reduce_sum(term, axis=0)
                term *= t_r2
        zeroth, first, second = (_SPACING * total for total in sums)
        q = math.exp(-_SPACING)
        below = _SPACING * _POINTS[0] * q / (1 - q) * one_over_c  # sum of t below the first point
        below2 = _SPACING * (_POINTS[0] * q * one_over_c) ** 2 / (1 - q * q)  # of t^2
        value = (
            _SPACING * np.exp(-_POINTS).sum()
            - tf.math.log(one_over_c)
            - zeroth
            - below2 * var * (2 * square + var)
        )
        by_mean = 2 * mean * (first + below - below2 * (1 + square + 3 * var))
        by_var = first - 2 * square * second + below - below2 * (1 + 3 * square + 3 * var)
        return value, lambda upstream: (upstream * by_mean, upstream * by_var)

    return value_and_gradient(mean, var)


def _precision_grid(df: float) -> tuple[FloatArray, FloatArray]:
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
    return precisions, log_weights - special.logsumexp(log_weights)


def _sum_of_two(values: FloatArray, weights: FloatArray) -> Nodes:
    """The distribution of the sum of two independent draws."""
    return np.add.outer(values, values).ravel(), np.outer(weights, weights).ravel()


def _gauss_nodes(values: FloatArray, weights: FloatArray, count: int) -> Nodes:
    """A few nodes that serve for many, in the mean of the E|N(m, v + value)| of a CRPS.

    These grow as sqrt(value) and are smooth in x = value / (c + value), so that a Gaussian rule
    for the measure weights * sqrt(c + values) over x converges fast: it is found from the
    tridiagonal matrix that Lanczos' algorithm makes of the measure (Golub & Welsch 1969).
    Centre c and the numbers of nodes were chosen by the CRPS's error relative to the predictive
    standard deviation: below 5e-4 for df above 2, below 2e-5 for df from 3.
    """
    x = values / (_CRPS_CENTRE + values)
    measure = weights * np.sqrt(_CRPS_CENTRE + values)
    basis = np.zeros((0, len(x)))
    vector = np.sqrt(measure)
    for _ in range(count):
        for _ in range(2):  # once more, against rounding
            vector = vector - basis.T @ (basis @ vector)
        basis = np.vstack([basis, vector / np.linalg.norm(vector)])
        vector = x * basis[-1]
    nodes, vectors = np.linalg.eigh(basis * x @ basis.T)
    found = _CRPS_CENTRE * nodes / (1 - nodes)
    return found, measure.sum() * np.square(vectors[0]) / np.sqrt(_CRPS_CENTRE + found)


class StudentTSettings(Frozen):
    """Student-t noise, for targets with outliers."""

    name: Literal["student_t"]
    scale: Annotated[Number, Field(gt=FLOOR)] = 0.3
    """Initial scale, in units of the standardised target."""
    degrees_of_freedom: Annotated[Number, Field(gt=2)] = 4.0
    """Fixed degrees of freedom; above 2, so that the predictive variance is finite."""

    likelihood: ClassVar[type[StudentTLikelihood]] = StudentTLikelihood

    def build(self) -> StudentTLikelihood:
        """In GPflow's default float type."""
        return StudentTLikelihood(
            gpflow.likelihoods.StudentT(
                scale=self.scale, df=self.degrees_of_freedom, scale_lower_bound=FLOOR
            )
        )
