"""A trained model, taken home: load it from a checkpoint and predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_probability as tfp

from natdgp.checkpoint.record import ModelRecord
from natdgp.checkpoint.weights import check_shapes_of_weights, load_weights
from natdgp.data.pipeline import evaluation_dataset
from natdgp.data.prepare import Numbers, Rows
from natdgp.models.noise import Stream
from natdgp.training.builder import build_training_model
from natdgp.training.model import NatGradModel

_TOLERANCE = 1e-12
"""How exact a quantile is, in predictive standard deviations."""

Table = Numbers | Sequence[Sequence[float]] | Mapping[str, npt.ArrayLike]


@dataclass(frozen=True)
class Prediction:
    """The predictive distribution of y at n inputs, in the original units."""

    mean: Numbers
    """[n, Q]."""
    std: Numbers
    """[n, Q], noise included."""
    quantiles: dict[float, Numbers]
    """Level to [n, Q]."""


class TrainedModel:
    """A deep GP with all that it needs to predict in the original units."""

    def __init__(self, model: NatGradModel, record: ModelRecord) -> None:
        """:param model: with its trained parameters.
        :param record: what its checkpoint says about it.
        """
        self.model = model
        self.record = record

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that it predicts from, in order."""
        return self.record.task.features

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that it predicts."""
        return self.record.task.targets

    def predict(self, X: Table, quantiles: Sequence[float] = (0.025, 0.5, 0.975)) -> Prediction:
        """Predict at new inputs.

        Equal inputs in an equal order give equal numbers: the Monte-Carlo samples are stateless.

        :param X: [n, D] in the units of the training data, columns in the order of `features`; or
            a data frame or mapping that holds those columns by name.
        :param quantiles: levels in (0, 1) of the predictive distribution to report.
        :raises ValueError: if a column is missing, the width is wrong or a value is not finite.
        """
        wrong = [level for level in quantiles if not 0 < level < 1]
        if wrong:
            raise ValueError(f"quantiles must lie between 0 and 1, not {wrong}")
        inputs = self._inputs(X)
        scaled = self.record.task.scaling.scale_x(inputs)
        rows = Rows(
            X=scaled.astype(self.record.settings.model.dtype),
            Y=np.zeros((len(inputs), len(self.targets)), self.record.settings.model.dtype),
        )
        batches = [
            tuple(np.asarray(part) for part in self._predict_batch(batch, tuple(quantiles)))
            for batch in evaluation_dataset(rows, global_batch_size=self._batch_size)
        ]
        mean, std, levels = (np.concatenate(parts, axis=-2) for parts in zip(*batches, strict=True))
        scaling = self.record.task.scaling
        return Prediction(
            mean=mean * scaling.y_std + scaling.y_mean,
            std=std * scaling.y_std,
            quantiles={
                level: values * scaling.y_std + scaling.y_mean
                for level, values in zip(quantiles, levels, strict=True)
            },
        )

    def evaluate(self, rows: Rows) -> dict[str, float]:
        """The figures of :class:`natdgp.training.predictive.PredictiveSums` over rows.

        :param rows: standardised by this model's scaling.
        """
        if len(rows) == 0:
            raise ValueError("there are no rows to evaluate")
        step = tf.function(self.model.test_step)
        self.model.reset_metrics()
        figures: dict[str, tf.Tensor] = {}
        for batch in evaluation_dataset(rows, global_batch_size=self._batch_size):
            figures = step(batch)
        return {name: float(value) for name, value in figures.items()}

    @property
    def _batch_size(self) -> int:
        return self.record.settings.evaluation.batch_size

    def _inputs(self, X: Table) -> Numbers:
        if isinstance(X, (np.ndarray, Sequence)):
            inputs = np.asarray(X, dtype=np.float64)
        else:
            missing = [name for name in self.features if name not in X]
            if missing:
                raise ValueError(
                    f"columns missing: {', '.join(missing)}; the model predicts from "
                    f"{', '.join(self.features)}"
                )
            inputs = np.column_stack([_numbers(name, X[name]) for name in self.features])
        if inputs.ndim != 2 or inputs.shape[1] != len(self.features) or len(inputs) == 0:
            raise ValueError(
                f"X has shape {list(inputs.shape)}; expected [n, {len(self.features)}] with n > 0 "
                f"and columns {', '.join(self.features)}"
            )
        rows, columns_at = np.nonzero(~np.isfinite(inputs))
        if len(rows):
            raise ValueError(
                f"X has {len(rows)} values that are not finite, the first in row {rows[0]}, "
                f"column {self.features[columns_at[0]]}; drop or impute those rows"
            )
        return inputs

    def _predict_batch(
        self, batch: Mapping[str, tf.Tensor], quantiles: tuple[float, ...]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mean [n, Q], standard deviation [n, Q] and quantiles [L, n, Q], standardised."""
        deep_gp = self.model.deep_gp
        with deep_gp.noise.at(
            stream=Stream.PREDICTION,
            first=batch["positions"][0],
            num_rows=tf.size(batch["positions"]),
            num_samples=deep_gp.samples_per_row(self.record.settings.evaluation.num_samples),
        ):
            f_mean, f_var = deep_gp.predict_f_samples(batch["inputs"])
        shape = tf.shape(f_mean)
        flat = [-1, shape[-1]]
        y_mean, y_var = deep_gp.likelihood.predict_mean_and_var(
            None, tf.reshape(f_mean, flat), tf.reshape(f_var, flat)
        )
        y_mean, y_var = tf.reshape(y_mean, shape), tf.reshape(y_var, shape)
        mean = tf.reduce_mean(y_mean, axis=0)
        std = tf.sqrt(tf.reduce_mean(y_var, axis=0) + tf.math.reduce_variance(y_mean, axis=0))
        levels = tf.constant(quantiles, mean.dtype)
        return mean, std, self._quantiles(levels, f_mean, f_var, mean, std)

    @tf.function(reduce_retracing=True)
    def _quantiles(
        self,
        levels: tf.Tensor,
        f_mean: tf.Tensor,
        f_var: tf.Tensor,
        mean: tf.Tensor,
        std: tf.Tensor,
    ) -> tf.Tensor:
        """Invert the mixture's CDF at all levels at once, [L, n, Q]; Cantelli's inequality bounds
        the brackets."""
        L = tf.size(levels)
        level = levels[:, None, None]
        reach = std * tf.sqrt(tf.maximum(1 - level, level) / tf.minimum(1 - level, level))
        f_mean, f_var = tf.tile(f_mean, [1, L, 1]), tf.tile(f_var, [1, L, 1])

        def excess(y: tf.Tensor) -> tf.Tensor:
            cdf = self.model.predictive.cdf(f_mean, f_var, tf.reshape(y, [-1, len(self.targets)]))
            return tf.reshape(cdf, tf.shape(y)) - level

        return tfp.math.find_root_chandrupatla(
            excess, mean - reach, mean + reach, position_tolerance=_TOLERANCE * std
        ).estimated_root


def _numbers(name: str, column: npt.ArrayLike) -> Numbers:
    try:
        return np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name} does not hold numbers: {error}") from error


def load(path: str | Path) -> TrainedModel:
    """Load a trained model from a run's folder (its best checkpoint) or from one checkpoint.

    Nothing in the checkpoint is executed: the weights are TensorFlow's, the rest is JSON.

    :raises FileNotFoundError: if there is no natdgp checkpoint.
    :raises DamagedCheckpoint: if a file of it is missing, cut short or altered, or a link, or if
        its record and its weights do not belong together.
    :raises ValueError: if a newer natdgp wrote it, or if the folder's best checkpoint lies outside.
    """
    folder = _checkpoint_folder(Path(path))
    record = ModelRecord.of_checkpoint(folder)
    check_shapes_of_weights(record, folder)
    model = build_training_model(
        record.settings, record.task.shape, record.task.scaling.y_std, seed=record.seed
    )
    load_weights(model, folder)
    return TrainedModel(model, record)


def _checkpoint_folder(path: Path) -> Path:
    best = path / "best"
    if not best.is_dir():
        return path
    if not best.resolve().is_relative_to(path.resolve()):
        raise ValueError(f"{best} leads out of the run's folder, to {best.resolve()}; load that")
    return best.resolve()
