"""Any GPflow likelihood, by GPflow's own formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from natdgp.lazy import check_shapes, lazy
from natdgp.likelihoods.base import MIXTURE, Figure, FloatArray, Likelihood, gpflow_float

if TYPE_CHECKING:
    import gpflow
    import tensorflow as tf
else:
    tf = lazy("tensorflow")


class GPflowLikelihood(Likelihood):
    """A likelihood of which nothing is known but what all GPflow likelihoods compute.

    Targets are taken as they are. Likelihoods that depend on the inputs are not supported.
    """

    scales_targets = False
    figures: ClassVar[tuple[Figure, ...]] = (Figure("rmse", "target"), Figure("nlpd", "nats"))

    @classmethod
    def wraps(cls, likelihood: gpflow.likelihoods.Likelihood) -> bool:
        """Every one."""
        return True

    def num_latent_gps(self, num_targets: int) -> int:
        """As many as the likelihood says, or one for each target where it takes any number."""
        return self.gpflow.latent_dim or num_targets

    @check_shapes(*MIXTURE, "return: [S, n]")
    def expected_log_density(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """GPflow's variational expectations."""
        with gpflow_float(mean.dtype):
            return self.gpflow.variational_expectations(None, mean, var, Y[None])

    @check_shapes(*MIXTURE, "return: [S, n]")
    def log_density_by_sample(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """GPflow's predictive log density."""
        with gpflow_float(mean.dtype):
            return self.gpflow.predict_log_density(None, mean, var, Y[None])

    def moments_by_sample(self, mean: tf.Tensor, var: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """GPflow's predictive mean and variance."""
        with gpflow_float(mean.dtype):
            y_mean, y_var = self.gpflow.predict_mean_and_var(None, mean, var)
        return y_mean, y_var

    @check_shapes(*MIXTURE)
    def row_scores(self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> dict[str, tf.Tensor]:
        """Log density [n] and squared error of the mean [n, Q]."""
        y_mean, _ = self.mean_and_variance(mean, var)
        return {
            "log_density": self.log_density(mean, var, Y),
            "squared_error": tf.square(y_mean - Y),
        }

    def figures_from(
        self, means: Mapping[str, tf.Tensor], y_std: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """RMSE over outputs, and NLPD joint over outputs, per row."""
        return {
            "rmse": tf.sqrt(tf.reduce_mean(means["squared_error"] * tf.square(y_std))),
            "nlpd": tf.reduce_sum(tf.math.log(y_std)) - means["log_density"],
        }

    @classmethod
    def check_targets(cls, Y: FloatArray, names: Sequence[str]) -> list[str]:
        """Nothing is known that could be wrong."""
        return []

    @classmethod
    def baseline(cls, Y_train: FloatArray, Y_test: FloatArray) -> dict[str, float]:
        """Predict the mean, of which only the RMSE is known."""
        return {"rmse": float(np.sqrt(np.mean(np.square(Y_test - Y_train.mean(axis=0)))))}
