"""All that a run trains, from its settings: rows, model, optimizers, callbacks."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from natdgp.checkpoint.record import ModelRecord, TaskRecord
from natdgp.checkpoint.structure import structure_of
from natdgp.data.pipeline import evaluation_dataset, training_dataset
from natdgp.data.prepare import Prepared, prepare
from natdgp.data.table import DataError, Table
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.deep_gp import DeepGP
from natdgp.settings.schema import Settings
from natdgp.training.assembly import build_optimizers, build_training_model
from natdgp.training.model import DeepGPModel
from natdgp.training.steppers import Aggregation


class Task:
    """What settings say of a run, each part made when it is first asked for."""

    def __init__(
        self,
        settings: Settings,
        *,
        seed: int,
        reducer: Reducer | None = None,
        aggregation: Aggregation | None = None,
        table: Table | None = None,
        saved: TaskRecord | None = None,
    ) -> None:
        """:param settings: the run's.
        :param seed: of the data's order, of initial values and of the sampling noise.
        :param reducer: adds up over ranks; by default this process is alone.
        :param aggregation: how many batches make a step of the optimizers; by default one.
        :param table: the rows, where they are in memory already.
        :param saved: the facts of the data, where a checkpoint has them and no rows are needed.
        """
        self.settings = settings
        self.seed = seed
        self.reducer = reducer or OneProcess()
        self._aggregation = aggregation
        self._table = table
        self._saved = saved

    @functools.cached_property
    def prepared(self) -> Prepared:
        """The rows, split and standardised.

        :raises DataError: if they cannot be read or used.
        """
        settings = self.settings
        likelihood = settings.model.likelihood.likelihood
        prepared = prepare(
            settings.data,
            settings.model.dtype,
            scales_targets=likelihood.scales_targets,
            table=self._table,
        )
        problems = [
            f"{part} rows: {problem}"
            for part in ("train", "validation", "test")
            for problem in likelihood.check_targets(getattr(prepared, part).Y, prepared.targets)
        ]
        if problems:
            raise DataError.together("data", problems)
        return prepared

    @functools.cached_property
    def record(self) -> TaskRecord:
        """The facts of the data that outlive the rows."""
        return self._saved or TaskRecord.of(self.prepared)

    def training_data(
        self, start: int, wrap: Callable[[tf.data.Dataset], tf.data.Dataset] | None = None
    ) -> tf.data.Dataset:
        """The endless stream of this rank's training rows, from a step on."""
        return training_dataset(
            self.prepared.train,
            global_batch_size=self.settings.global_batch_size,
            seed=self.seed,
            start_step=start,
            num_shards=self.reducer.size,
            wrap=wrap or self._shard,
        )

    def validation_data(
        self, wrap: Callable[[tf.data.Dataset], tf.data.Dataset] | None = None
    ) -> tf.data.Dataset:
        """Every validation row once, over all ranks."""
        return evaluation_dataset(
            self.prepared.validation,
            global_batch_size=self.settings.evaluation.batch_size,
            num_shards=self.reducer.size,
            wrap=wrap or self._shard,
        )

    def _shard(self, blocks: tf.data.Dataset) -> tf.data.Dataset:
        return blocks.shard(self.reducer.size, self.reducer.rank)

    def model(self, deep_gp: DeepGP | None = None) -> DeepGPModel:
        """The model, not yet compiled; an empty shell where a checkpoint is being loaded.

        :param deep_gp: what it trains; by default the deep GP of the settings.
        :raises TooFewRows: if there are fewer distinct rows than inducing points.
        """
        initialises = deep_gp is None and self._saved is None and self.reducer.rank == 0
        return build_training_model(
            self.settings,
            self.record.shape,
            self.record.scaling.y_std,
            seed=self.seed,
            X=self.prepared.train.X if initialises else None,
            deep_gp=deep_gp,
            reducer=self.reducer,
            aggregation=self._aggregation,
        )

    def compiled_model(self) -> DeepGPModel:
        """The model with its optimizers."""
        model = self.model()
        model.compile(build_optimizers(self.settings, model))
        return model

    def callbacks(self) -> list[tf.keras.callbacks.Callback]:
        """Callbacks beside those that the settings ask for: none."""
        return []

    def model_record(self, model: tf.keras.Model) -> ModelRecord:
        """What a checkpoint says about a model that was trained on this task."""
        return ModelRecord(self.settings, self.record, self.seed, structure_of_model(model))


def structure_of_model(model: tf.keras.Model) -> dict[str, object]:
    """The structure of any Keras model: a deep GP's in full, any other's by its class."""
    deep_gp = getattr(model, "deep_gp", None)
    if isinstance(deep_gp, DeepGP):
        return structure_of(deep_gp)
    return {"class": type(model).__name__}
