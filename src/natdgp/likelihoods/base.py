"""What a kind of target has to say: its expected log density, its predictive density, its figures.

A row's prediction is a mixture over S Monte-Carlo samples of the inner layers,
p(y) = 1/S sum_s integral p(y | f) N(f; m_s, v_s) df, with m and v of shape [S, n, P].
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from natdgp.lazy import check_shapes, lazy

if TYPE_CHECKING:
    import gpflow
    import tensorflow as tf
    import tensorflow_probability as tfp
else:
    gpflow = lazy("gpflow")
    tf = lazy("tensorflow")
    tfp = lazy("tensorflow_probability")

FloatArray = npt.NDArray[np.float64]

FLOOR = 1e-6
"""Below this no variance or scale of a likelihood can go (GPflow's default)."""

MIXTURE = ("mean: [S, n, P]", "var: [S, n, P]", "Y: [n, Q]")
"""Shapes of a prediction and of the targets that it is judged by."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number by which predictions are judged."""

    name: str
    unit: Literal["target", "standardised", "nats", "share"]
    larger_is_better: bool = False
    judges: bool = True
    """Whether models may be selected by it: whether smaller, or larger, is always better."""


class Likelihood(abc.ABC):
    """A kind of target, p(y | f). The GPflow likelihood that it has holds the parameters."""

    gpflow: gpflow.likelihoods.Likelihood
    figures: ClassVar[tuple[Figure, ...]]
    scales_targets: ClassVar[bool]
    """Whether the model sees standardised targets, or targets as they are."""
    has_cdf: ClassVar[bool] = False
    """Whether the target is a number, whose distribution has a CDF and quantiles."""

    def __init__(self, likelihood: gpflow.likelihoods.Likelihood) -> None:
        """:param likelihood: with the parameters."""
        self.gpflow = likelihood

    @classmethod
    @abc.abstractmethod
    def wraps(cls, likelihood: gpflow.likelihoods.Likelihood) -> bool:
        """Whether this class computes what that GPflow likelihood is."""

    def num_latent_gps(self, num_targets: int) -> int:
        """P, the latent GPs that Q targets need."""
        return num_targets

    @abc.abstractmethod
    def expected_log_density(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """E log p(y | f) over f ~ N(mean, var), summed over outputs.

        :param mean: [S, n, P].
        :param var: [S, n, P].
        :param Y: [n, Q], as the model sees targets.
        :returns: [S, n], in nats.
        """

    @abc.abstractmethod
    def log_density_by_sample(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """log of the integral of p(y | f) N(f; mean, var), summed over outputs.

        :returns: [S, n], in nats.
        """

    @abc.abstractmethod
    def moments_by_sample(self, mean: tf.Tensor, var: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of y in each sample, both [S, n, Q]."""

    @abc.abstractmethod
    def row_scores(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> dict[str, tf.Tensor]:
        """What the figures are made of, for each row: [n], or [n, Q] where outputs stay apart.

        Their means over all rows go to :meth:`figures_from`.
        """

    @abc.abstractmethod
    def figures_from(
        self, means: Mapping[str, tf.Tensor], y_std: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The figures by name.

        :param means: of the row scores over rows: [] or [Q], float64.
        :param y_std: [Q], what the targets were divided by; ones if they are not scaled.
        """

    @classmethod
    @abc.abstractmethod
    def check_targets(cls, Y: FloatArray, names: Sequence[str]) -> list[str]:
        """What is wrong with targets [N, Q] of this kind, in words, each with its remedy.

        :param names: of the columns.
        """

    @classmethod
    @abc.abstractmethod
    def baseline(cls, Y_train: FloatArray, Y_test: FloatArray) -> dict[str, float]:
        """Figures on Y_test of the simplest model, which knows only Y_train.

        :param Y_train: [N, Q], in original units.
        :param Y_test: [N, Q], in original units.
        :returns: figures in original units.
        """

    @check_shapes(*MIXTURE, "return: [n]")
    def log_density(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """log p(y) of each row: the log of the mean over S samples, never the mean of logs.

        :returns: in nats, outputs joint inside each sample.
        """
        logs = self.log_density_by_sample(mean, var, Y)
        S = tf.cast(tf.shape(logs)[0], logs.dtype)
        return tf.reduce_logsumexp(logs, axis=0) - tf.math.log(S)

    @check_shapes("mean: [S, n, P]", "var: [S, n, P]", "return[0]: [n, Q]", "return[1]: [n, Q]")
    def mean_and_variance(self, mean: tf.Tensor, var: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of y, noise included."""
        y_mean, y_var = self.moments_by_sample(mean, var)
        return (
            tf.reduce_mean(y_mean, axis=0),
            tf.reduce_mean(y_var, axis=0) + tf.math.reduce_variance(y_mean, axis=0),
        )

    def cdf(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """P(y' <= y) of each row and output, [n, Q].

        :raises TypeError: where the target has no CDF; see `has_cdf`.
        """
        raise TypeError(f"{type(self).__name__} has no CDF and no quantiles")

    @check_shapes("levels: [L]", "mean: [S, n, P]", "var: [S, n, P]", "return: [L, n, Q]")
    def quantiles(self, levels: tf.Tensor, mean: tf.Tensor, var: tf.Tensor) -> tf.Tensor:
        """Quantiles of y: the mixture's CDF inverted at all levels at once.

        Cantelli's inequality bounds the brackets. Found to rounding in the CDF, or to 1e-12
        standard deviations. Meant to be called inside a `tf.function`.

        :param levels: in (0, 1).
        :raises TypeError: where the target has no CDF; see `has_cdf`.
        """
        L = tf.size(levels)
        level = levels[:, None, None]
        y_mean, y_var = self.mean_and_variance(mean, var)
        std, targets = tf.sqrt(y_var), y_mean.shape[-1]
        reach = std * tf.sqrt(tf.maximum(1 - level, level) / tf.minimum(1 - level, level))
        mean, var = tf.tile(mean, [1, L, 1]), tf.tile(var, [1, L, 1])

        def excess(y: tf.Tensor) -> tf.Tensor:
            cdf = self.cdf(mean, var, tf.reshape(y, [-1, targets]))
            return tf.reshape(cdf, tf.shape(y)) - level

        return tfp.math.find_root_chandrupatla(
            excess, y_mean - reach, y_mean + reach, position_tolerance=1e-12 * std
        ).estimated_root


def as_column(values: FloatArray, like: tf.Tensor) -> tf.Tensor:
    """[K] numbers as [K, 1, 1, 1], against [S, n, Q]."""
    return tf.constant(values[:, None, None, None], like.dtype)


def normal_cdf(z: tf.Tensor) -> tf.Tensor:
    """Phi(z), to the last digits in the lower tail."""
    return 0.5 * tf.math.erfc(-z / math.sqrt(2))


@contextlib.contextmanager
def gpflow_float(dtype: Any) -> Iterator[None]:
    """Let GPflow make parameters of a float type, and leave its global default as it is."""
    config = dataclasses.replace(gpflow.config.config(), float=tf.as_dtype(dtype).as_numpy_dtype)
    with gpflow.config.as_context(config):
        yield
