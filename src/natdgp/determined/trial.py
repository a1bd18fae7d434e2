"""The trial: what Determined drives, on a cluster and off it."""

from __future__ import annotations

import functools
import logging

import determined as det
import tensorflow as tf
from determined import keras

from natdgp.checkpoint.record import ModelRecord, TaskRecord
from natdgp.data.pipeline import evaluation_dataset, training_dataset
from natdgp.data.prepare import Prepared, prepare
from natdgp.determined.callbacks import build_callbacks
from natdgp.determined.controller import DeepGPController
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.inducing import TooFewRows
from natdgp.settings import SettingsError
from natdgp.settings.schema import Settings
from natdgp.training.aggregation import Aggregation
from natdgp.training.builder import build_optimizers, build_training_model
from natdgp.training.memory import too_large_a_batch

logger = logging.getLogger("natdgp.determined")

TASK_KEY = "prepared_task"
"""Under this key of the configuration's `data`, a checkpoint keeps the facts of its task, so that
Determined's own `load_model_from_checkpoint_path` rebuilds the model without the data."""


class DeepGPTrial(keras.TFKerasTrial):
    """Trains a deep GP with natural gradients.

    Subclass it to change a part: every `build_*` method and `keras_callbacks` stands on its own.
    No TensorFlow work happens before they are called, because the visible GPU is not set yet.
    """

    trial_controller_class = DeepGPController

    def __init__(self, context: keras.TFKerasTrialContext) -> None:
        """:raises determined.InvalidHP: if hyperparameters are wrong; it lists all.
        :raises SettingsError: if `data` is wrong, which no other hyperparameters could mend.
        """
        super().__init__(context)
        context.configure_fit(verbose=False, shuffle=False)
        data = dict(context.get_data_config())
        self._saved_task = data.pop(TASK_KEY, None)
        try:
            self.settings = Settings.read(context.get_hparams(), data)
        except SettingsError as error:
            if any(problem.path.startswith("data") for problem in error.problems):
                raise
            # Determined reports an InvalidHP to the searcher and drops its message.
            logger.error("%s", error)
            raise det.InvalidHP(str(error)) from error
        slots, rows = context.distributed.size, self.settings.global_batch_size
        if rows % slots:
            # Determined would round it down, and K slots would not train what one does.
            message = (
                f"hyperparameters.global_batch_size is {rows}, which {slots} slots cannot share "
                f"evenly; use {rows // slots * slots} or {(rows // slots + 1) * slots}"
            )
            logger.error("%s", message)
            raise det.InvalidHP(message)
        why = None if self._saved_task else too_large_a_batch(self.settings, slots)
        if why is not None:
            logger.error("%s", why)
            raise det.InvalidHP(why)

    @functools.cached_property
    def prepared(self) -> Prepared:
        """The task's rows, split and standardised; read when first asked for."""
        return prepare(self.settings.data, self.settings.model.dtype)

    @functools.cached_property
    def record(self) -> ModelRecord:
        """What a checkpoint says about this trial's model."""
        if self._saved_task is not None:
            task = TaskRecord.from_dict(self._saved_task)
        else:
            task = TaskRecord.of(self.prepared)
            self.context.env.experiment_config["data"][TASK_KEY] = task.to_dict()
        return ModelRecord(self.settings, task, self.context.get_trial_seed())

    def build_training_data_loader(self) -> tf.data.Dataset:
        """The endless stream of training rows, from this trial's first step on."""
        return training_dataset(
            self.prepared.train,
            global_batch_size=self.settings.global_batch_size,
            seed=self.context.get_trial_seed(),
            start_step=self.context.get_initial_batch(),
            num_shards=self.context.distributed.size,
            wrap=self.context.wrap_dataset,
        )

    def build_validation_data_loader(self) -> tf.data.Dataset:
        """Every validation row once."""
        return evaluation_dataset(
            self.prepared.validation,
            global_batch_size=self.settings.evaluation.batch_size,
            num_shards=self.context.distributed.size,
            wrap=self.context.wrap_dataset,
        )

    def build_model(self) -> tf.keras.Model:
        """The model, wrapped and compiled; an empty shell when a checkpoint is being loaded."""
        task = self.record.task
        reducer = self._reducer()
        initialises = self._saved_task is None and reducer.rank == 0
        optimizations = self.context.get_experiment_config()["optimizations"]
        try:
            model = build_training_model(
                self.settings,
                task.shape,
                task.scaling.y_std,
                seed=self.context.get_trial_seed(),
                X=self.prepared.train.X if initialises else None,
                reducer=reducer,
                aggregation=Aggregation(
                    optimizations["aggregation_frequency"],
                    optimizations["average_aggregated_gradients"],
                ),
            )
        except TooFewRows as error:
            logger.error("%s", error)
            raise det.InvalidHP(str(error)) from error
        optimizers = build_optimizers(self.settings, model, self.context.wrap_optimizer)
        wrapped = self.context.wrap_model(model)
        wrapped.compile(optimizer=optimizers)
        return wrapped

    def _reducer(self) -> Reducer:
        if self.context.distributed.size == 1:
            return OneProcess()
        from natdgp.distributed.horovod_reducer import HorovodReducer  # only where Horovod is there

        return HorovodReducer()

    def keras_callbacks(self) -> list[tf.keras.callbacks.Callback]:
        """Schedules and stopping rules, as the settings say."""
        return build_callbacks(self.settings)
