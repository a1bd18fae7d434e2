"""Determined's Keras controller, mended where it meets a deep GP (determined 0.38.1)."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import determined as det
import tensorflow as tf
from determined import keras, tensorboard, workload
from determined.layers._workload_sequencer import ShouldExit

from natdgp.checkpoint.compatibility import misfits, other_data
from natdgp.checkpoint.record import ModelRecord
from natdgp.checkpoint.training_state import (
    read_aggregated,
    read_state,
)
from natdgp.checkpoint.weights import complete_checkpoint, load_weights
from natdgp.data.inspection import Inspection
from natdgp.data.pipeline import with_names
from natdgp.data.table import DataError
from natdgp.determined.rank_watchdog import RankWatchdog
from natdgp.determined.workload_heartbeat import WorkloadHeartbeat
from natdgp.distributed.heartbeat import Heartbeat
from natdgp.distributed.reducer import gather_on_first_rank
from natdgp.training.callbacks import EarlyStopping, build_callbacks, load_states, states_of
from natdgp.training.diagnosis import explain_breakdown, explain_failure
from natdgp.training.drift import check_drift
from natdgp.training.event_files import EventFiles
from natdgp.training.model import DeepGPModel
from natdgp.training.natgrad_model import NaturalGradientTraining
from natdgp.training.schedules import gamma_at, steps_per_epoch

logger = logging.getLogger("natdgp.determined")


class DeepGPController(keras.TFKerasTrialController):
    """What it changes, and why, stands at each method."""

    def __init__(
        self,
        model: tf.keras.Model,
        session: Any,
        train_config: keras.TFKerasTrainConfig,
        trial: Any,
        context: keras.TFKerasTrialContext,
        env: det.EnvContext,
        workloads: workload.Stream | None = None,
    ) -> None:
        # The master fills in 0 for a missing records_per_epoch, and then on_epoch_end would fire
        # after every batch; None is what "no epochs" means to the callbacks.
        if not env.experiment_config.get("records_per_epoch"):
            env.experiment_config.pop("records_per_epoch", None)
        self.breakdown: det.InvalidHP | None = None
        """Why a validation ended the trial, if one did."""
        train_config = _without_sequence_adapters(context, train_config)
        self._own_callbacks: list[Any] = []
        if isinstance(model, NaturalGradientTraining):
            per_epoch = steps_per_epoch(
                env.experiment_config.get("records_per_epoch"), context.get_global_batch_size()
            )
            self._own_callbacks = build_callbacks(trial.settings, per_epoch)
        # What the settings ask for is there, whatever a trial's keras_callbacks returns.
        callbacks = [*self._own_callbacks, *(train_config.callbacks or [])]
        super().__init__(
            model,
            session,
            train_config._replace(callbacks=callbacks),
            trial,
            context,
            env,
            workloads,
        )
        self._inspections: list[Inspection] = []
        self.training_data: Any
        self.validation_data: Any
        self.training_data = self._inspected(self.training_data, "build_training_data_loader")
        self.validation_data = self._inspected(self.validation_data, "build_validation_data_loader")
        self.workloads: workload.Stream
        if self.wlsq is not None:
            if self._validation_is_due():
                self.workloads = self._validation_first(self.workloads)
            self.workloads = self._none_once_stopped(self.workloads)
        self.workloads = self._ready_to_save(self.workloads)
        self._progress: WorkloadHeartbeat | None = None
        if env.on_cluster and context.distributed.size > 1:
            watchdog = RankWatchdog(context.distributed, env.allocation_id)
            self.show(watchdog.heartbeat)
            watchdog.begin()

    def show(self, heartbeat: Heartbeat) -> None:
        """Let others see how far this rank is; to be called before it runs."""
        self._progress = WorkloadHeartbeat(heartbeat, self.env.steps_completed)
        # Last: a rank whose other callbacks hang has not begun the batch.
        self.callback_list.callbacks.append(self._progress)
        self.workloads = self._progress.during(self.workloads)
        if isinstance(self.model, NaturalGradientTraining):
            self.model.reducer.announce(self._progress.arrive)

    def run(self) -> None:
        """Train, validate and save, as the workloads say."""
        try:
            super().run()
        finally:
            if self._progress is not None:
                self._progress.end()

    def _configure_callbacks(self, user_callbacks: list[Any] | None) -> None:
        # Determined has Horovod broadcast all variables after the first batch. They are equal
        # already, but for what each rank has aggregated of its own gradients.
        super()._configure_callbacks(user_callbacks)
        self.callback_list.callbacks = [self.multiplexer]

    def _validation_is_due(self) -> bool:
        started = bool(self.wlsq.state.steps_completed > 0)
        return started and bool(self.wlsq.batches_until_val() < 1)

    def _validation_first(self, workloads: workload.Stream) -> workload.Stream:
        # A trial that was preempted between a training workload and the validation due after it
        # would, resumed, train one more batch first and validate one step late ever after. Only
        # the chief has a sequencer; it tells the other ranks what to do and waits for them, as
        # Determined's own stream of workloads does.
        distributed = self.context.distributed
        try:
            for validation, respond in self.wlsq.validate(None):
                distributed.broadcast(validation)
                yield validation, respond
                distributed.gather(None)
        except ShouldExit:
            distributed.broadcast(None)
            return
        yield from workloads

    def _none_once_stopped(self, workloads: workload.Stream) -> workload.Stream:
        # The loop asks for work when callbacks have their state back. A trial that early stopping
        # had ended would train on if it is started again.
        if any(one.has_stopped for one in self._own_callbacks if isinstance(one, EarlyStopping)):
            self.context.distributed.broadcast(None)
            return
        yield from workloads

    def _ready_to_save(self, workloads: workload.Stream) -> workload.Stream:
        # Determined's loop saves on the chief alone, where nothing can be asked of other ranks.
        for work, respond in workloads:
            if work.kind == workload.Workload.Kind.CHECKPOINT_MODEL:
                if self._progress is not None:
                    self._progress.save()
                check_drift(self.model)
                if (aggregated := self._aggregated) is not None:
                    gather_on_first_rank(aggregated, self.model.reducer)
            yield work, respond

    def _create_metric_writer(self) -> tensorboard.BatchMetricWriter:
        # Determined's writer puts every run outside a cluster into the same folder.
        path = self.context.get_tensorboard_path()
        if path is None:  # `det experiment create --local --test` has none
            return super()._create_metric_writer()
        return tensorboard.BatchMetricWriter(_MetricWriter(path))

    def _save_checkpoint(self, path: Path) -> None:
        # Determined writes optimizer state to HDF5 by variable name, and GPflow's variables share
        # names. Ours is in the model's TensorFlow checkpoint already, so there is none to write.
        with _no_optimizers(self.context):
            super()._save_checkpoint(path)
        state = {"callbacks": states_of(self._own_callbacks)}
        complete_checkpoint(self.model, self._record, path, state)

    def _load_optimizers_weights(self, optimizer_weights_checkpoint_path: Path) -> None:
        # They come with the model's weights; see _save_checkpoint.
        pass

    def _load_model_weights(self, model_weights_checkpoint_path: Path) -> None:
        load_weights(self.model, model_weights_checkpoint_path.parent)

    def _load(self, load_path: Path) -> None:
        saved = ModelRecord.of_checkpoint(load_path)
        if problems := misfits(saved, self._record):
            raise self._invalid(
                "\n  - ".join([f"{load_path} is a checkpoint of another model:", *problems])
            )
        with self._repeating_validations():
            super()._load(load_path)
        started = self.env.steps_completed
        if not isinstance(self.model, NaturalGradientTraining):
            return  # its steps are not counted: it goes on as Determined's own would
        if int(self.model.step) == started:
            if (change := other_data(saved.task, self._record.task)) is not None:
                raise DataError(
                    f"the data are not those that the trial began with: {change}; bring the former "
                    "data back, or begin a new run"
                )
            load_states(self._own_callbacks, read_state(load_path).get("callbacks", {}))
            if (aggregated := self._aggregated) is not None:
                read_aggregated(load_path, aggregated, rank=self.model.reducer.rank)
            return
        logger.info(
            "Starting from another trial's checkpoint (step %d): parameters and Adam's moments "
            "are kept, the schedules and the order of the data start at step %d.",
            int(self.model.step),
            started,
        )
        self.model.step.assign(started)
        self.model.optimizer.learning_rate.assign(self.trial.settings.adam.learning_rate)
        for position, optimizer in enumerate(self.model.natgrad_optimizers):
            optimizer.gamma = gamma_at(self.trial.settings.natural_gradient, started, position)
        self.multiplexer_load_state = None  # epochs and the callbacks' memory of validations

    @contextlib.contextmanager
    def _repeating_validations(self) -> Iterator[None]:
        # A validation that was due after this checkpoint may have been reported by a session that
        # was killed before the next one. Determined does not repeat it, so that early stopping and
        # its like would never have seen it; only the last of a trial is nothing to them.
        if self.wlsq is None:
            yield
            return
        reported, self.wlsq.val_from_previous_run = self.wlsq.val_from_previous_run, None
        yield
        self.wlsq.val_from_previous_run = reported
        if reported == self.wlsq.state.steps_completed and not self._validation_is_due():
            self.wlsq.state.last_val = reported

    @property
    def _aggregated(self) -> tf.Variable | None:
        return getattr(self.model, "aggregated", None)

    @property
    def _record(self) -> ModelRecord:
        record: ModelRecord = self.trial.task.model_record(self.model)
        return record

    def _launch_fit(self) -> None:
        # TensorFlow raises what a searcher should hear as an invalid hyperparameter.
        try:
            super()._launch_fit()
        except (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError) as error:
            why = explain_failure(self.model, self.steps_completed, error.message)
            if why is None:
                raise
            raise self._invalid(why) from error

    def _post_train_batch_end(self, num_inputs: int, logs: dict[str, Any]) -> None:
        if self._progress is not None:
            self._progress.end_batch()
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise self._broken(f"loss is {loss} in the step after step {self.steps_completed}")
        super()._post_train_batch_end(num_inputs, logs)

    def _allreduce_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        # Determined averages the figures of all ranks, whatever they weigh. Ours are those of all
        # rows already, equal on every rank.
        if isinstance(self.model, DeepGPModel):
            return logs
        reduced: dict[str, Any] = super()._allreduce_logs(logs)
        return reduced

    def _compute_validation_metrics(self) -> workload.Response:
        response = super()._compute_validation_metrics()
        for name, value in response.get("validation_metrics", {}).items():
            if not math.isfinite(value):
                # A searcher that receives a NaN fails the whole experiment.
                broken = self._broken(f"{name} is {value} after step {self.steps_completed}")
                if isinstance(broken, det.InvalidHP):
                    # Determined's control loop catches it; a local run raises it again from here.
                    self.breakdown = broken
                raise broken
        return response

    def _inspected(self, data: Any, loader: str) -> Any:
        if not isinstance(data, tf.data.Dataset):
            return data
        inspection = Inspection(loader)
        self._inspections.append(inspection)
        return inspection.of(with_names(data, getattr(self.model, "input_names", None)))

    def _broken(self, what: str) -> det.InvalidHP | DataError:
        # Why a figure is not finite, the same on every rank: if data are to blame, one has seen it.
        own = [one.found for one in self._inspections if one.found is not None]
        for found in self.context.distributed.allgather(own):
            if found:
                return DataError(f"{what}: {found[0]}")
        return self._invalid(explain_breakdown(self.model, what))

    def _invalid(self, message: str) -> det.InvalidHP:
        if self.env.on_cluster:  # Determined reports it to the searcher and drops the message
            logger.error("%s", message)
        return det.InvalidHP(message)


class _MetricWriter(EventFiles, tensorboard.MetricWriter):
    """Determined uploads files between resets and takes closed ones for final."""

    def reset(self) -> None:
        self.close()


def _without_sequence_adapters(
    context: keras.TFKerasTrialContext, config: keras.TFKerasTrainConfig
) -> keras.TFKerasTrainConfig:
    # Determined's own unwrapping calls context._configure_fit, which does not exist.
    training = config.training_data
    if isinstance(training, keras.SequenceAdapter):
        context.configure_fit(
            workers=training.workers,
            use_multiprocessing=training.use_multiprocessing,
            max_queue_size=training.max_queue_size,
        )
        training = training.sequence
    validation = config.validation_data
    if isinstance(validation, keras.SequenceAdapter):
        validation = validation.sequence
    return keras.TFKerasTrainConfig(training, validation, config.callbacks)


@contextlib.contextmanager
def _no_optimizers(context: keras.TFKerasTrialContext) -> Iterator[None]:
    optimizers, context._optimizers = context._optimizers, []
    try:
        yield
    finally:
        context._optimizers = optimizers
