"""A trial of the user's own, as the engine's loop takes it on one machine, without a master."""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import determined as det
import tensorflow as tf
from determined import keras

from natdgp.checkpoint.record import ModelRecord
from natdgp.data.table import DataError
from natdgp.distributed.reducer import Reducer
from natdgp.settings.schema import Settings
from natdgp.training.diagnosis import TrainingFailure
from natdgp.training.natgrad_model import NaturalGradientTraining
from natdgp.training.steppers import Aggregation
from natdgp.training.task import Task


def is_trial(value: object) -> bool:
    """Whether it is a class of Determined's Keras trials."""
    return isinstance(value, type) and issubclass(value, keras.TFKerasTrial)


class LocalContext:
    """What a trial asks of Determined's context, answered on one machine."""

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        seed: int,
        start: int,
        reducer: Reducer,
        aggregation: Aggregation,
        tensorboard: Path,
    ) -> None:
        """:param config: the experiment configuration, with its defaults.
        :param seed: the trial's.
        :param start: the step that it goes on from.
        :param reducer: adds up over ranks.
        :param aggregation: how many batches make a step.
        :param tensorboard: where event files go.
        """
        self._config = det.ExperimentConfig(copy.deepcopy(dict(config)))
        self._seed = seed
        self._start = start
        self._tensorboard = tensorboard
        self.reducer = reducer
        self.aggregation = aggregation
        self.distributed = types.SimpleNamespace(
            rank=reducer.rank,
            size=reducer.size,
            local_rank=reducer.rank,
            local_size=reducer.size,
            cross_rank=0,
            cross_size=1,
            get_rank=lambda: reducer.rank,
            get_size=lambda: reducer.size,
            get_local_rank=lambda: reducer.rank,
        )
        self.model: tf.keras.Model | None = None
        """What the trial has wrapped."""

    def get_experiment_config(self) -> dict[str, Any]:
        """The experiment configuration."""
        config: dict[str, Any] = self._config
        return config

    def get_hparams(self) -> dict[str, Any]:
        """Its hyperparameters."""
        hparams: dict[str, Any] = self._config["hyperparameters"]
        return hparams

    def get_hparam(self, name: str) -> Any:
        """One of them."""
        return self.get_hparams()[name]

    def get_data_config(self) -> dict[str, Any]:
        """Its `data` section."""
        data: dict[str, Any] = self._config["data"]
        return data

    def get_trial_seed(self) -> int:
        """The seed."""
        return self._seed

    def get_initial_batch(self) -> int:
        """The step that the run goes on from."""
        return self._start

    def get_experiment_id(self) -> int:
        """There is one experiment on this machine."""
        return 1

    def get_trial_id(self) -> int:
        """And one trial."""
        return 1

    def get_global_batch_size(self) -> int:
        """B, over all ranks."""
        return int(self.get_hparams()["global_batch_size"])

    def get_per_slot_batch_size(self) -> int:
        """B / K."""
        return self.get_global_batch_size() // self.reducer.size

    def get_tensorboard_path(self) -> Path:
        """The run's own folder of event files."""
        return self._tensorboard

    def configure_fit(self, **_: Any) -> None:
        """The engine's loop has no settings of Keras' `fit`."""

    def wrap_dataset(self, dataset: Any, shard_dataset: bool = True) -> Any:
        """This rank's share of a dataset."""
        if self.reducer.size > 1 and shard_dataset and isinstance(dataset, tf.data.Dataset):
            return dataset.shard(self.reducer.size, self.reducer.rank)
        return dataset

    def wrap_optimizer(self, optimizer: Any) -> Any:
        """The same: natdgp's models reduce their gradients themselves."""
        return optimizer

    def wrap_model(self, model: tf.keras.Model) -> tf.keras.Model:
        """The same model, as one of several ranks'.

        :raises TrainingFailure: for another's model on several ranks, which would drift apart.
        """
        if isinstance(model, NaturalGradientTraining):
            model.join(self.reducer, self.aggregation)
        elif self.reducer.size > 1:
            raise TrainingFailure(
                f"a {type(model).__name__} does not reduce its gradients over ranks; use "
                "natdgp's NatGradModel or NatGradWrapper, or one process"
            )
        self.model = model
        return model


class LocalTrial:
    """A trial with the face of a :class:`natdgp.training.task.Task`."""

    def __init__(self, trial_class: type[keras.TFKerasTrial], context: LocalContext) -> None:
        """:param trial_class: the user's.
        :raises TrainingFailure: here and in every method, if it says that its hyperparameters are
            invalid.
        """
        self._context = context
        with _translated():
            self._trial = trial_class(context)

    @functools.cached_property
    def task(self) -> Task:
        """The task as the settings have it; the trial's own, if it is one of natdgp's."""
        own = getattr(self._trial, "task", None)
        if isinstance(own, Task):
            return own
        context = self._context
        settings = Settings.read(context.get_hparams(), context.get_data_config())
        return Task(settings, seed=context.get_trial_seed(), reducer=context.reducer)

    def training_data(self, start: int) -> tf.data.Dataset:
        """The trial's training data, from the step on that its context names."""
        with _translated():
            data = self._trial.build_training_data_loader()
        return _dataset(
            data, "build_training_data_loader"
        ).repeat()  # as Determined's own loop does

    def validation_data(self) -> tf.data.Dataset:
        """The trial's validation data."""
        with _translated():
            data = self._trial.build_validation_data_loader()
        return _dataset(data, "build_validation_data_loader")

    def compiled_model(self) -> tf.keras.Model:
        """The trial's model."""
        with _translated():
            self._trial.build_model()
        if self._context.model is None:
            raise DataError("build_model has not called context.wrap_model; have it wrap its model")
        return self._context.model

    def callbacks(self) -> list[tf.keras.callbacks.Callback]:
        """The trial's callbacks; TensorBoard's write to the run's folder."""
        with _translated():
            callbacks = list(self._trial.keras_callbacks())
        if self._context.reducer.rank != 0:
            callbacks = [one for one in callbacks if not getattr(one, "_chief_worker_only", False)]
        for one in callbacks:
            if isinstance(one, keras.callbacks.TensorBoard):
                one.log_dir = str(self._context.get_tensorboard_path())
        return callbacks

    def model_record(self, model: tf.keras.Model) -> ModelRecord:
        """What a checkpoint says about the trial's model."""
        return self.task.model_record(model)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except det.InvalidHP as error:
        raise TrainingFailure(str(error)) from error


def _dataset(data: Any, loader: str) -> tf.data.Dataset:
    if not isinstance(data, tf.data.Dataset):
        raise DataError(f"{loader} gave a {type(data).__name__}; have it return a tf.data.Dataset")
    return data
