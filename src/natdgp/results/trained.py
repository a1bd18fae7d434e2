"""A trained model, taken home: load it from a checkpoint and predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from natdgp.checkpoint.checksums import DamagedCheckpoint
from natdgp.checkpoint.record import ModelRecord
from natdgp.checkpoint.structure import differences, structure_of
from natdgp.checkpoint.weights import check_shapes_of_weights, load_weights
from natdgp.data.pipeline import evaluation_dataset
from natdgp.data.prepare import Numbers, Rows
from natdgp.models.builder import TaskShape
from natdgp.models.deep_gp import DeepGP
from natdgp.settings.schema import Settings
from natdgp.training.model import DeepGPModel
from natdgp.training.task import Task

Builder = Callable[[Settings, TaskShape, int], DeepGP]
"""(settings, shape of the task, seed) to a model whose variables are then filled."""

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

    def __init__(self, model: DeepGPModel, record: ModelRecord) -> None:
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

        A prediction is a function of the row: not of the other rows, nor of their order. All rows
        share the same Monte-Carlo samples of the inner layers.

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
        levels = tf.constant(quantiles, rows.X.dtype)
        batches = [
            tuple(np.asarray(part) for part in self._predict_batch(batch["inputs"], levels))
            for batch in evaluation_dataset(rows, global_batch_size=self._batch_size)
        ]
        mean, std, values = (np.concatenate(parts, axis=-2) for parts in zip(*batches, strict=True))
        scaling = self.record.task.scaling
        return Prediction(
            mean=mean * scaling.y_std + scaling.y_mean,
            std=std * scaling.y_std,
            quantiles={
                level: of_level * scaling.y_std + scaling.y_mean
                for level, of_level in zip(quantiles, values, strict=True)
            },
        )

    def evaluate(self, rows: Rows) -> dict[str, float]:
        """The figures of :class:`natdgp.training.evaluation.Evaluation` over rows.

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

    @tf.function(reduce_retracing=True)
    def _predict_batch(
        self, X: tf.Tensor, levels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mean [n, Q], standard deviation [n, Q] and quantiles [L, n, Q], standardised."""
        likelihood = self.model.deep_gp.likelihood
        f = self.model.deep_gp.predictive_marginals(X, self.model.evaluation_samples)
        mean, variance = likelihood.mean_and_variance(*f)
        return mean, tf.sqrt(variance), likelihood.quantiles(levels, *f)


def _numbers(name: str, column: npt.ArrayLike) -> Numbers:
    try:
        return np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name} does not hold numbers: {error}") from error


def load(path: str | Path, build: Builder | None = None) -> TrainedModel:
    """Load a trained model from a run's folder (its best checkpoint) or from one checkpoint.

    Nothing in the checkpoint is executed: the weights are TensorFlow's, the rest is JSON.

    :param build: makes the model, where a trial's own `build_model` made the one that was trained:
        `build(settings, shape, seed)` returns a :class:`natdgp.models.deep_gp.DeepGP` of the same
        structure. By default the settings say what it is.
    :raises FileNotFoundError: if there is no natdgp checkpoint.
    :raises DamagedCheckpoint: if a file of it is missing, cut short or altered, or a link, or if
        its record and its weights do not belong together.
    :raises ValueError: if a newer natdgp wrote it, if the folder's best checkpoint lies outside, or
        if the model that was trained is of another structure, which the message tells.
    """
    folder = _checkpoint_folder(Path(path))
    record = ModelRecord.of_checkpoint(folder)
    if build is None:
        check_shapes_of_weights(record, folder)
        model = Task(record.settings, seed=record.seed, saved=record.task).model()
    else:
        model = DeepGPModel(
            build(record.settings, record.task.shape, record.seed),
            natgrad_layers=(),
            num_samples=record.settings.model.num_samples,
            evaluation_samples=record.settings.evaluation.num_samples,
            y_std=record.task.scaling.y_std,
        )
    if record.structure is not None and (
        other := differences(record.structure, structure_of(model.deep_gp))
    ):
        raise ValueError(
            "\n  - ".join(
                [
                    f"{folder} is of a model that "
                    + ("its settings do not make" if build is None else "build does not make")
                    + "; pass load(path, build=...) a function that makes it:",
                    *other,
                ]
            )
        )
    try:
        load_weights(model, folder)
    except (AssertionError, tf.errors.OpError, ValueError) as error:
        if build is None:
            raise
        raise DamagedCheckpoint(
            f"{folder} holds other variables than the model that build makes: {error}"
        ) from error
    return TrainedModel(model, record)


def _checkpoint_folder(path: Path) -> Path:
    best = path / "best"
    if not best.is_dir():
        return path
    if not best.resolve().is_relative_to(path.resolve()):
        raise ValueError(f"{best} leads out of the run's folder, to {best.resolve()}; load that")
    return best.resolve()
