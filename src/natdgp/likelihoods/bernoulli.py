"""Two classes, 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import numpy as np

from natdgp.fields import Frozen
from natdgp.lazy import check_shapes, lazy
from natdgp.likelihoods.base import MIXTURE, Figure, FloatArray, Likelihood, as_column, normal_cdf

if TYPE_CHECKING:
    import gpflow
    import tensorflow as tf
    from scipy import special
else:
    gpflow = lazy("gpflow")
    special = lazy("scipy.special")
    tf = lazy("tensorflow")

_LAPSE: Final = 1e-3
"""Probability of either class by chance, however sure f is (that of GPflow's `inv_probit`)."""

_SMALL_VAR: Final = 0.15
"""Up to here 20-point Gauss-Hermite is right to 1e-8; from here on, the trapezoidal rule."""
_TINY_VAR: Final = 1e-12
"""Below this, f is as good as known, and the derivative of its standard deviation too large."""
_SPACING: Final = 0.25
_PLACES: Final = np.arange(-7, 7.1, _SPACING)


class BernoulliLikelihood(Likelihood):
    """P(y = 1 | f) = lapse + (1 - 2 lapse) Phi(f), for each target by a latent GP of its own."""

    scales_targets = False
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("nlpd", "nats"),
        Figure("accuracy", "share", larger_is_better=True),
        Figure("brier", "share"),
    )

    @classmethod
    def wraps(cls, likelihood: gpflow.likelihoods.Likelihood) -> bool:
        """GPflow's Bernoulli with its default link, the probit."""
        return (
            type(likelihood) is gpflow.likelihoods.Bernoulli
            and likelihood.invlink is gpflow.likelihoods.utils.inv_probit
        )

    @check_shapes(*MIXTURE, "return: [S, n]")
    def expected_log_density(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """E g(f), g(f) = log P(y = 1 | f), at -f for y = 0; right to 1e-8.

        By Gauss-Hermite where f varies little; elsewhere that is off by 0.01 at var = 4 and by 0.4
        at 100. There g is split into a probit between its two limits, whose expectation is known,
        and a rest that vanishes beyond |x| = 7, whose product with N(x; mean, var) is summed.
        """
        mean = (2 * Y - 1) * mean
        points, weights = np.polynomial.hermite_e.hermegauss(20)
        f = mean + tf.sqrt(tf.clip_by_value(var, _TINY_VAR, _SMALL_VAR)) * as_column(
            points, like=mean
        )
        by_hermite = as_column(weights / np.sqrt(2 * np.pi), like=mean) * tf.math.log(_probit(f))

        large_var = tf.maximum(var, _SMALL_VAR)
        low, high = np.log(_LAPSE), np.log1p(-_LAPSE)
        rest = (
            np.log(_LAPSE + (1 - 2 * _LAPSE) * special.ndtr(_PLACES))
            - low
            - (high - low) * special.ndtr(_PLACES)
        )
        squares = tf.square(as_column(_PLACES, like=mean) - mean)
        by_places = as_column(_SPACING * rest, like=mean) * tf.exp(-0.5 / large_var * squares)
        expected = tf.where(
            var < _SMALL_VAR,
            tf.reduce_sum(by_hermite, axis=0),
            low
            + (high - low) * normal_cdf(mean * tf.math.rsqrt(1 + large_var))
            + tf.reduce_sum(by_places, axis=0) * tf.math.rsqrt(2 * np.pi * large_var),
        )
        return tf.reduce_sum(expected, axis=-1)

    @check_shapes(*MIXTURE, "return: [S, n]")
    def log_density_by_sample(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """log P(y), exact: a probit averaged over a Gaussian is Phi(mean / sqrt(1 + var))."""
        probability = _probit((2 * Y - 1) * mean * tf.math.rsqrt(1 + var))
        return tf.reduce_sum(tf.math.log(probability), axis=-1)

    def moments_by_sample(self, mean: tf.Tensor, var: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """P(y = 1) and its variance p (1 - p)."""
        p = _probit(mean * tf.math.rsqrt(1 + var))
        return p, p * (1 - p)

    @check_shapes(*MIXTURE)
    def row_scores(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> dict[str, tf.Tensor]:
        """Log density [n]; whether the likelier class is right, and squared error: [n, Q]."""
        p, _ = self.mean_and_variance(mean, var)
        return {
            "log_density": self.log_density(mean, var, Y),
            "correct": tf.cast((p >= 0.5) == (Y >= 0.5), mean.dtype),
            "squared_error": tf.square(p - Y),
        }

    def figures_from(
        self, means: Mapping[str, tf.Tensor], y_std: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """NLPD (the log loss) joint over outputs, per row; the others as means over outputs."""
        return {
            "nlpd": -means["log_density"],
            "accuracy": tf.reduce_mean(means["correct"]),
            "brier": tf.reduce_mean(means["squared_error"]),
        }

    @classmethod
    def check_targets(cls, Y: FloatArray, names: Sequence[str]) -> list[str]:
        """Targets other than 0 and 1."""
        return [
            f"target {name!r} holds {y[np.argmax(wrong)]:g} in row {np.argmax(wrong)}, and "
            f"{wrong.sum()} values in all that are neither 0 nor 1; code its two classes as 0 and 1"
            for name, y, wrong in zip(names, Y.T, ~np.isin(Y, (0, 1)).T, strict=True)
            if wrong.any()
        ]

    @classmethod
    def baseline(cls, Y_train: FloatArray, Y_test: FloatArray) -> dict[str, float]:
        """Predict each class as often as it was in training; one never seen, once in N + 2."""
        never = 1 / (len(Y_train) + 2)
        p = np.clip(Y_train.mean(axis=0), never, 1 - never)
        return {
            "nlpd": float(-np.mean(np.sum(np.log(np.where(Y_test == 1, p, 1 - p)), axis=1))),
            "accuracy": float(np.mean((p >= 0.5) == (Y_test == 1))),
            "brier": float(np.mean(np.square(p - Y_test))),
        }


def _probit(f: tf.Tensor) -> tf.Tensor:
    return _LAPSE + (1 - 2 * _LAPSE) * normal_cdf(f)


class BernoulliSettings(Frozen):
    """Two classes, 0 and 1."""

    name: Literal["bernoulli"]

    likelihood: ClassVar[type[BernoulliLikelihood]] = BernoulliLikelihood

    def build(self) -> BernoulliLikelihood:
        """It has no parameters."""
        return BernoulliLikelihood(gpflow.likelihoods.Bernoulli())
