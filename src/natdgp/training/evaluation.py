"""Figures that people select models by, summed exactly over rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from check_shapes import check_shapes

from natdgp.models.deep_gp import DeepGP


def evaluation_step(
    model: tf.keras.Model, batches: tf.data.Dataset
) -> Callable[[Any], dict[str, tf.Tensor]]:
    """A model's `test_step` as one graph, for all drivers the same and for batches of any size.

    Graphs for known sizes would differ in their last bits.

    :param batches: of the kind that it is called with.
    """
    step: Callable[[Any], dict[str, tf.Tensor]] = tf.function(
        functools.partial(model.test_step), input_signature=[batches.element_spec]
    )
    return step


class Evaluation(tf.keras.metrics.Metric):
    """Sums over rows of all that the likelihood's figures need, in float64.

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
        super().__init__(name="evaluation", dtype=tf.float64)
        self._deep_gp = deep_gp
        self._y_std = tf.constant(y_std, tf.float64)
        self._total = total
        dtype = deep_gp.dtype
        outputs = deep_gp.likelihood.num_latent_gps(len(y_std))
        one = tf.ones([1, 1, outputs], dtype)
        scores = self._scores(one, one, tf.zeros([1, len(y_std)], dtype), one[:, :, 0])
        self._shapes = {name: score.shape[1:] for name, score in scores.items()}
        width = 1 + sum(shape.num_elements() for shape in self._shapes.values())
        self._sums = self.add_weight("sums", shape=[width], initializer="zeros", dtype=tf.float64)

    def reset_state(self) -> None:
        """Forget all rows."""
        self._sums.assign(tf.zeros_like(self._sums))

    @tf.autograph.experimental.do_not_convert
    @check_shapes("mean: [S, n, P]", "var: [S, n, P]", "Y: [n, Q]", "bounds: [S, n]")
    def update_state(
        self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor, bounds: tf.Tensor
    ) -> None:
        """Add a batch.

        :param mean: of f, per sample.
        :param var: of f, per sample.
        :param Y: targets, as the likelihood has them.
        :param bounds: on log p(y) of each row, per sample.
        """
        scores = self._scores(mean, var, Y, bounds).values()
        sums = [tf.reduce_sum(tf.cast(score, tf.float64), axis=0) for score in scores]
        rows = tf.cast(tf.shape(Y)[:1], tf.float64)
        self._sums.assign_add(tf.concat([rows, *(tf.reshape(one, [-1]) for one in sums)], axis=0))

    @tf.autograph.experimental.do_not_convert
    def result(self) -> dict[str, tf.Tensor]:
        """Figures by name: the likelihood's, and the bound.

        `loss` is the negative ELBO per row, standardised; `elbo_per_datum` is in the units of y.
        """
        sums = self._total(self._sums)
        sizes = [shape.num_elements() for shape in self._shapes.values()]
        means = {
            name: tf.reshape(piece, shape)
            for (name, shape), piece in zip(
                self._shapes.items(), tf.split(sums[1:] / sums[0], sizes), strict=True
            )
        }
        kl = tf.cast(self._deep_gp.kl() - self._deep_gp.log_prior(), tf.float64)
        elbo = means.pop("bound") - kl / self._deep_gp.num_data
        figures = self._deep_gp.likelihood.figures_from(means, self._y_std)
        log_volume = tf.reduce_sum(tf.math.log(self._y_std))
        return {"loss": -elbo, "elbo_per_datum": elbo - log_volume, **figures}

    def _scores(
        self, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor, bounds: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        scores = self._deep_gp.likelihood.row_scores(mean, var, Y)
        return {"bound": tf.reduce_mean(bounds, axis=0), **scores}
