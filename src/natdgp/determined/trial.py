"""The trial: it translates between Determined and the engine, and computes nothing."""

from __future__ import annotations

import functools
import logging
from typing import NoReturn

import determined as det
import tensorflow as tf
from determined import keras

from natdgp.checkpoint.record import TaskRecord
from natdgp.determined.context import DeepGPContext
from natdgp.determined.controller import DeepGPController
from natdgp.models.inducing import TooFewRows
from natdgp.settings.problems import SettingsError
from natdgp.settings.schema import Settings
from natdgp.training.assembly import build_optimizers
from natdgp.training.memory import too_large_a_batch
from natdgp.training.task import Task

logger = logging.getLogger("natdgp.determined")

TASK_KEY = "prepared_task"
"""Under this key of the configuration's `data`, a checkpoint keeps the facts of its task, so that
Determined's own `load_model_from_checkpoint_path` rebuilds the model without the data."""


class DeepGPTrial(keras.TFKerasTrial):
    """Trains a deep GP with natural gradients.

    Subclass it to change a part: every `build_*` method and `keras_callbacks` stands on its own.
    Schedules, early stopping and the like, as the settings ask for them, are there whatever
    `keras_callbacks` returns. No TensorFlow work happens before these methods are called, because
    the visible GPU is not set yet.
    """

    trial_controller_class = DeepGPController
    trial_context_class = DeepGPContext

    def __init__(self, context: DeepGPContext) -> None:
        """:raises determined.InvalidHP: if hyperparameters are wrong; it lists all.
        :raises SettingsError: if `data` is wrong, which no other hyperparameters could mend.
        """
        super().__init__(context)
        self.context: DeepGPContext
        context.configure_fit(verbose=False, shuffle=False)
        data = dict(context.get_data_config())
        saved = data.pop(TASK_KEY, None)
        self._saved = None if saved is None else TaskRecord.from_dict(saved)
        try:
            self.settings = Settings.read(context.get_hparams(), data)
        except SettingsError as error:
            if any(problem.path.startswith("data") for problem in error.problems):
                raise
            _refuse(str(error))
        slots, rows = context.distributed.size, self.settings.global_batch_size
        if rows % slots:
            # Determined would round it down, and K slots would not train what one does.
            _refuse(
                f"hyperparameters.global_batch_size is {rows}, which {slots} slots cannot share "
                f"evenly; use {rows // slots * slots} or {(rows // slots + 1) * slots}"
            )
        why = None if self._saved else too_large_a_batch(self.settings, slots)
        if why is not None:
            _refuse(why)

    @functools.cached_property
    def task(self) -> Task:
        """Rows, model and optimizers, as the settings say; each made when first asked for."""
        task = Task(
            self.settings,
            seed=self.context.get_trial_seed(),
            reducer=self.context.reducer,
            aggregation=self.context.aggregation,
            saved=self._saved,
        )
        if self._saved is None:
            self.context.get_experiment_config()["data"][TASK_KEY] = task.record.to_dict()
        return task

    def build_training_data_loader(self) -> tf.data.Dataset:
        """The endless stream of training rows, from this trial's first step on."""
        return self.task.training_data(self.context.get_initial_batch(), self.context.wrap_dataset)

    def build_validation_data_loader(self) -> tf.data.Dataset:
        """Every validation row once."""
        return self.task.validation_data(self.context.wrap_dataset)

    def build_model(self) -> tf.keras.Model:
        """The model, wrapped and compiled; an empty shell when a checkpoint is being loaded."""
        try:
            model = self.task.model()
        except TooFewRows as error:
            _refuse(str(error))
        optimizers = build_optimizers(self.settings, model, self.context.wrap_optimizer)
        wrapped = self.context.wrap_model(model)
        wrapped.compile(optimizer=optimizers)
        return wrapped

    def keras_callbacks(self) -> list[tf.keras.callbacks.Callback]:
        """Callbacks beside those that the settings ask for: none."""
        return []


def _refuse(message: str) -> NoReturn:
    logger.error("%s", message)  # Determined tells the searcher, and drops the message
    raise det.InvalidHP(message)
