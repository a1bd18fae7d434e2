"""A trained model, taken home: load it from a checkpoint and predict."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from natdgp.checkpoint.checksums import WEIGHTS_NAME, DamagedCheckpoint
from natdgp.checkpoint.record import ModelRecord
from natdgp.checkpoint.structure import differences, structure_of
from natdgp.checkpoint.weights import check_shapes_of_weights, load_weights, write_checkpoint
from natdgp.data.pipeline import evaluation_dataset
from natdgp.data.prepare import Numbers, Rows
from natdgp.models.builder import TaskShape
from natdgp.models.deep_gp import DeepGP
from natdgp.settings.schema import Settings
from natdgp.training.evaluation import evaluation_step
from natdgp.training.model import DeepGPModel
from natdgp.training.task import Task

Builder = Callable[[Settings, TaskShape, int], DeepGP]
"""(settings, shape of the task, seed) to a model whose variables are then filled."""

RowsByName = Any
"""An array or nested sequences [n, D]; or columns by name: a mapping, a pandas or polars frame."""


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

    def __init__(
        self,
        model: DeepGPModel,
        record: ModelRecord,
        history: Sequence[Mapping[str, float]] = (),
    ) -> None:
        """:param model: with its trained parameters.
        :param record: what its checkpoint says about it.
        :param history: the validations of its training, each with its `step`, where they are known.
        """
        self.model = model
        self.record = record
        self.history = [dict(one) for one in history]
        self.test_figures: dict[str, float] | None = None
        """Those of the test rows, where a fit was given some."""
        self._score: Callable[[Any], dict[str, tf.Tensor]] | None = None
        dtype = record.settings.model.dtype
        self._predict = {
            # A partial: TensorFlow counts the traces of a function over all models, and warns.
            with_levels: tf.function(
                functools.partial(self._predict_batch),
                input_signature=[
                    tf.TensorSpec([None, len(record.task.features)], dtype),
                    *([tf.TensorSpec([None], dtype)] if with_levels else []),
                ],
            )
            for with_levels in (False, True)
        }

    @classmethod
    def of_parameters(
        cls,
        record: ModelRecord,
        parameters: Sequence[Numbers],
        history: Sequence[Mapping[str, float]] = (),
    ) -> TrainedModel:
        """A model that its settings make, with its parameters as :attr:`parameters` gives them.

        :raises ValueError: if it was another model that was trained.
        """
        model = Task(record.settings, seed=record.seed, saved=record.task).model()
        _check_structure(
            record,
            model,
            "these parameters are of a model that its settings do not make; use save, and load "
            "with build",
        )
        for variable, value in zip(model.deep_gp.variables, parameters, strict=True):
            variable.assign(value)
        return cls(model, record, history)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies hold the record, the parameters and the history."""
        return type(self).of_parameters, (self.record, self.parameters, self.history)

    @property
    def parameters(self) -> list[Numbers]:
        """The values of all variables of the deep GP."""
        return [variable.numpy() for variable in self.model.deep_gp.variables]

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that it predicts from, in order."""
        return self.record.task.features

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that it predicts."""
        return self.record.task.targets

    def predict(self, X: RowsByName, quantiles: Sequence[float] | None = None) -> Prediction:
        """Predict at new inputs.

        A prediction is a function of the row: not of the other rows, nor of their order. All rows
        share the same Monte-Carlo samples of the inner layers.

        :param X: [n, D] in the units of the training data, columns in the order of `features`; or
            a data frame or mapping that holds those columns by name.
        :param quantiles: levels in (0, 1) of the predictive distribution to report; by default
            0.025, 0.5 and 0.975, or none where the target is no number, as with Bernoulli's.
        :raises ValueError: if a column is missing, the width is wrong, a value is not finite, or
            quantiles are asked of a target that has none.
        """
        has_quantiles = self.model.deep_gp.likelihood.has_cdf
        if quantiles is None:
            quantiles = (0.025, 0.5, 0.975) if has_quantiles else ()
        if len(quantiles) and not has_quantiles:
            kind = self.record.settings.model.likelihood.name
            raise ValueError(
                f"the target ({kind}) has no quantiles; its mean is what there is: leave quantiles "
                "out"
            )
        wrong = [level for level in quantiles if not 0 < level < 1]
        if wrong:
            raise ValueError(f"quantiles must lie between 0 and 1, not {wrong}")
        inputs = self._inputs(X)
        scaled = self.record.task.scaling.scale_x(inputs)
        rows = Rows(
            X=scaled.astype(self.record.settings.model.dtype),
            Y=np.zeros((len(inputs), len(self.targets)), self.record.settings.model.dtype),
        )
        levels = [tf.constant(quantiles, rows.X.dtype)] if len(quantiles) else []
        predict = self._predict[bool(levels)]
        batches = [
            tuple(np.asarray(part) for part in predict(batch["inputs"], *levels))
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

    def evaluate(self, X: RowsByName, Y: RowsByName | None = None) -> dict[str, float]:
        """The figures over rows in the units of the training data.

        :param X: as :meth:`predict` takes it.
        :param Y: targets [n] or [n, Q], or a table that holds them by name; by default X does.
        :returns: as validations have them, without `val_`.
        :raises ValueError: as :meth:`predict`, and for targets that the likelihood cannot have.
        """
        inputs = self._inputs(X)
        targets = self._columns("Y", X if Y is None else Y, self.targets)
        if len(inputs) != len(targets):
            raise ValueError(f"X has {len(inputs)} rows and Y has {len(targets)}; give as many")
        settings, scaling = self.record.settings.model, self.record.task.scaling
        likelihood = settings.likelihood.likelihood
        if problems := likelihood.check_targets(targets, self.targets):
            raise ValueError("; ".join(problems))
        return self.evaluate_rows(
            Rows(
                scaling.scale_x(inputs).astype(settings.dtype),
                scaling.scale_y(targets).astype(settings.dtype),
            )
        )

    def evaluate_rows(self, rows: Rows) -> dict[str, float]:
        """The figures of :class:`natdgp.training.evaluation.Evaluation` over rows.

        :param rows: standardised by this model's scaling.
        """
        if len(rows) == 0:
            raise ValueError("there are no rows to evaluate")
        batches = evaluation_dataset(rows, global_batch_size=self._batch_size)
        if self._score is None:
            self._score = evaluation_step(self.model, batches)
        self.model.reset_metrics()
        figures: dict[str, tf.Tensor] = {}
        for batch in batches:
            figures = self._score(batch)
        return {name: float(value) for name, value in figures.items()}

    def save(self, path: str | Path) -> None:
        """Write a folder that :func:`load` takes.

        :param path: a new folder, or an empty one.
        :raises FileExistsError: if there is something in it.
        """
        write_checkpoint(self.model, self.record, Path(path))

    @property
    def _batch_size(self) -> int:
        return self.record.settings.evaluation.batch_size

    def _inputs(self, X: RowsByName) -> Numbers:
        return self._columns("X", X, self.features)

    def _columns(self, what: str, data: RowsByName, names: Sequence[str]) -> Numbers:
        """[n, len(names)], from arrays or from a table that has the names."""
        if not (isinstance(data, Mapping) or hasattr(data, "columns")):
            values = np.asarray(data, dtype=np.float64)
            values = values[:, None] if what == "Y" and values.ndim == 1 else values
        else:
            missing = [name for name in names if name not in data]
            if missing:
                raise ValueError(
                    f"columns missing: {', '.join(missing)}; the model predicts "
                    f"{'from ' if what == 'X' else ''}{', '.join(names)}"
                )
            values = np.column_stack([_numbers(name, data[name]) for name in names])
        if values.ndim != 2 or values.shape[1] != len(names) or len(values) == 0:
            raise ValueError(
                f"{what} has shape {list(values.shape)}; expected [n, {len(names)}] with n > 0 "
                f"and columns {', '.join(names)}"
            )
        rows, columns_at = np.nonzero(~np.isfinite(values))
        if len(rows):
            raise ValueError(
                f"{what} has {len(rows)} values that are not finite, the first in row {rows[0]}, "
                f"column {names[columns_at[0]]}; drop or impute those rows"
            )
        return values

    @tf.autograph.experimental.do_not_convert
    def _predict_batch(
        self, X: tf.Tensor, levels: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mean [n, Q], standard deviation [n, Q] and quantiles [L, n, Q], standardised."""
        likelihood = self.model.deep_gp.likelihood
        f = self.model.deep_gp.predictive_marginals(X, self.model.evaluation_samples)
        mean, variance = likelihood.mean_and_variance(*f)
        at_levels = mean[None][:0] if levels is None else likelihood.quantiles(levels, *f)
        return mean, tf.sqrt(variance), at_levels


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
    if record.structure is not None and "layers" not in record.structure:
        raise ValueError(
            f"{folder} is of a {record.structure['class']}, and not of a deep GP of natdgp's: read "
            f"its weights with Keras from {folder / WEIGHTS_NAME}"
        )
    if build is None:
        try:
            check_shapes_of_weights(record, folder)
        except DamagedCheckpoint as error:
            own = "; or a trial's own build_model made it: then pass load(path, build=...)"
            raise DamagedCheckpoint(f"{error}{own}") from error
    deep_gp = None if build is None else build(record.settings, record.task.shape, record.seed)
    model = Task(record.settings, seed=record.seed, saved=record.task).model(deep_gp)
    _check_structure(
        record,
        model,
        f"{folder} is of a model that {'its settings do' if build is None else 'build does'} not "
        "make; pass load(path, build=...) a function that makes it",
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


def _check_structure(record: ModelRecord, model: DeepGPModel, what: str) -> None:
    """:raises ValueError: if a record's model is of another structure, with all differences."""
    if record.structure is None:
        return
    if other := differences(record.structure, structure_of(model.deep_gp)):
        raise ValueError("\n  - ".join([f"{what}:", *other]))
