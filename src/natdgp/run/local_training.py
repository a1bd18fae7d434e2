"""A run on one machine: the engine's loop over a task, or over a trial of the user's own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from natdgp.checkpoint.compatibility import misfits, other_data
from natdgp.checkpoint.record import ModelRecord
from natdgp.checkpoint.training_state import read_aggregated, read_state
from natdgp.checkpoint.weights import complete_checkpoint, load_weights, save_weights
from natdgp.data.table import DataError
from natdgp.distributed.rank_channel import RankChannel
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.inducing import TooFewRows
from natdgp.run.devices import use_gpu_of
from natdgp.run.driver import FollowingDriver, Observer, RunDriver
from natdgp.run.interruptions import handling
from natdgp.run.journal import Journal
from natdgp.run.run_folder import Checkpoint, RunFolder
from natdgp.run.stop_decisions import StopDecisions
from natdgp.run.trial_code import LIBRARY_TRIALS, trial_class_of, working_in
from natdgp.settings.experiment import Experiment
from natdgp.settings.spans import in_batches
from natdgp.training.callbacks import build_callbacks
from natdgp.training.diagnosis import TrainingFailure
from natdgp.training.heartbeat_callback import HeartbeatCallback
from natdgp.training.loop import Driver, Loop, Plan
from natdgp.training.memory import too_large_a_batch
from natdgp.training.natgrad_model import NaturalGradientTraining
from natdgp.training.schedules import steps_per_epoch
from natdgp.training.steppers import Aggregation
from natdgp.training.task import Task


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    steps: int
    """Training steps completed."""
    completed: bool
    """Whether all steps of the configured length were taken and the last one validated."""
    signal: signal.Signals | None
    """What interrupted it, if anything did."""
    best: Path
    """The checkpoint with the best validation, or the latest if none was validated."""
    model: tf.keras.Model
    """The model that was trained, with the parameters of the best checkpoint."""
    task: Task
    """Its data."""
    validation: Mapping[str, float]
    """Its validation figures; none if none was validated."""


def plan_of(experiment: Experiment) -> Plan:
    """When an experiment trains, validates and saves, by the sequencer's own arithmetic."""
    config, rows = experiment.config, experiment.settings.global_batch_size
    records = config.get("records_per_epoch")

    def period(name: str) -> int | None:
        return in_batches(config[name], rows, records) or None

    return Plan(
        length=in_batches(config["searcher"]["max_length"], rows, records),
        report_every=config["scheduling_unit"],
        validate_every=period("min_validation_period"),
        save_every=period("min_checkpoint_period"),
        save_policy=config["checkpoint_policy"],
        validates_first=config["perform_initial_validation"],
        steps_per_epoch=steps_per_epoch(records, rows),
        judge=config["searcher"]["metric"],
        smaller_is_better=config["searcher"]["smaller_is_better"],
    )


def train(
    experiment: Experiment,
    folder: RunFolder,
    observer: Observer,
    channel: RankChannel | None = None,
    stop_decisions: StopDecisions | None = None,
) -> Outcome:
    """Train until the configured length, a stop of the run's own, or a signal.

    :param experiment: what to train.
    :param folder: the run's folder; if it holds checkpoints, the run goes on from the latest.
    :param observer: is told what happens.
    :param channel: between the ranks, if this is rank 0 of several.
    :param stop_decisions: what to wait for after every validation, if a search judges the run.
    :raises TrainingFailure: if a hyperparameter makes training break down.
    :raises DataError: if the data cannot be used, or are not those that the run began with.
    :raises NotSaved: if the disk refuses what has to be kept.
    :raises KeyboardInterrupt: if it is asked to end before there is anything to save.
    """
    channel = channel or RankChannel()
    with _working_in_code(experiment, folder):
        run = _Run(experiment, folder, channel)
        with handling(channel.ask_to_end), channel.heeding():
            journal = Journal(folder.metrics, run.plan, up_to=run.start if run.latest else -1)

            def write(path: Path, state: Mapping[str, Any]) -> None:
                save_weights(run.model, path)
                loop.tell("on_checkpoint_end", str(path))  # which may add files
                complete_checkpoint(run.model, run.record, path, state)

            storage = experiment.config["checkpoint_storage"]
            driver = RunDriver(
                folder,
                journal,
                observer,
                channel,
                write,
                keep_best=storage["save_trial_best"],
                keep_latest=storage["save_trial_latest"],
                stop_decisions=stop_decisions,
            )
            if run.latest is None:
                folder.set_reports_aside()  # before callbacks open files of theirs
            loop = run.loop(driver)
            try:
                ending = loop.run()
            finally:
                driver.close()
            driver.collect()
        if (best := journal.best(folder.checkpoints())) is None:
            raise KeyboardInterrupt
        load_weights(run.model, best.path)
        return Outcome(
            steps=ending.step,
            completed=max(journal.validations, default=0) >= run.plan.length,
            signal=channel.asked if ending.reason == "interrupted" else None,
            best=best.path,
            model=run.model,
            task=run.task,
            validation=journal.validations.get(best.steps, {}),
        )


def follow(experiment: Experiment, folder: RunFolder, channel: RankChannel) -> None:
    """Take part in a run as another rank than 0, which alone writes to the folder.

    :raises TrainingFailure: if a hyperparameter makes training break down, on all ranks.
    """
    with _working_in_code(experiment, folder):
        run = _Run(experiment, folder, channel)
        with handling(channel.ask_to_end):
            run.loop(FollowingDriver()).run()


def _working_in_code(
    experiment: Experiment, folder: RunFolder
) -> contextlib.AbstractContextManager[None]:
    own_code = experiment.trial not in LIBRARY_TRIALS
    return working_in(folder) if own_code else contextlib.nullcontext()


class _Run:
    """A run of which everything is loaded, on one of its ranks."""

    def __init__(self, experiment: Experiment, folder: RunFolder, channel: RankChannel) -> None:
        checkpoints = folder.checkpoints()  # before the ranks have met, and rank 0 may write
        self.latest = checkpoints[-1] if checkpoints else None
        self.start = self.latest.steps if self.latest else 0
        self.plan = plan_of(experiment)
        self._settings = experiment.settings
        self._heartbeat = channel.heartbeat
        reducer = _reducer(channel)
        # A task, or a trial with its face.
        self._subject = _subject(experiment, folder, reducer, self.start)
        self.task: Task = getattr(self._subject, "task", self._subject)
        why = too_large_a_batch(experiment.settings, reducer.size)
        if why is not None:
            raise TrainingFailure(why)
        try:
            self.model: tf.keras.Model = self._subject.compiled_model()
        except TooFewRows as error:
            raise TrainingFailure(str(error)) from error
        self.record: ModelRecord = self._subject.model_record(self.model)
        self._state: Mapping[str, Any] = {}
        if self.latest is not None:
            self._state = _restore(self.model, self.record, self.latest, reducer)

    def loop(self, driver: Driver) -> Loop:
        """The engine's loop, ready to run."""
        callbacks, heartbeat = list(self._subject.callbacks()), None
        if isinstance(self.model, NaturalGradientTraining):
            callbacks = [*build_callbacks(self._settings, self.plan.steps_per_epoch), *callbacks]
        if self._heartbeat is not None:
            heartbeat = HeartbeatCallback(self._heartbeat, self.start)
            self.model.reducer.announce(heartbeat.arrive)
        loop = Loop(
            self.model,
            self._subject.training_data,
            self._subject.validation_data(),
            self.plan,
            driver,
            callbacks,
            heartbeat,
        )
        if self._state:
            loop.restore(self._state)
        return loop


def _reducer(channel: RankChannel) -> Reducer:
    if channel.ranks == 1:
        use_gpu_of(0)
        return OneProcess()
    from natdgp.distributed.horovod_reducer import HorovodReducer  # only where Horovod is there

    reducer = HorovodReducer()
    use_gpu_of(reducer.rank)
    return reducer


def _subject(experiment: Experiment, folder: RunFolder, reducer: Reducer, start: int) -> Any:
    """What is trained: the settings' own task, or the trial that the entrypoint names."""
    seed = experiment.config["reproducibility"]["experiment_seed"]
    tf.keras.utils.set_random_seed(seed % 2**32)  # what a trial draws by itself
    optimizations = experiment.config["optimizations"]
    aggregation = Aggregation(
        optimizations["aggregation_frequency"], optimizations["average_aggregated_gradients"]
    )
    if experiment.trial in LIBRARY_TRIALS:
        return Task(experiment.settings, seed=seed, reducer=reducer, aggregation=aggregation)
    trial_class = trial_class_of(experiment.trial, folder)
    from natdgp.determined.local_trial import LocalContext, LocalTrial

    context = LocalContext(
        experiment.config,
        seed=seed,
        start=start,
        reducer=reducer,
        aggregation=aggregation,
        tensorboard=folder.tensorboard,
    )
    return LocalTrial(trial_class, context)


def _restore(
    model: tf.keras.Model, own: ModelRecord, latest: Checkpoint, reducer: Reducer
) -> dict[str, Any]:
    """Fill a model from a checkpoint; returns the loop's state."""
    saved = ModelRecord.of_checkpoint(latest.path)
    if problems := misfits(saved, own):
        raise TrainingFailure(
            "\n  - ".join([f"{latest.path} is a checkpoint of another model:", *problems])
        )
    if (change := other_data(saved.task, own.task)) is not None:
        raise DataError(
            f"the data are not those that the run began with: {change}; bring the former data "
            "back, or begin a new run"
        )
    state = read_state(latest.path)
    if "step" not in state:
        raise DataError(
            f"{latest.path} was written by an older natdgp or on a cluster, where a run's state is "
            "kept in another form: it predicts, but trains no further here; begin a new run"
        )
    load_weights(model, latest.path)
    if (aggregated := getattr(model, "aggregated", None)) is not None:
        read_aggregated(latest.path, aggregated, rank=reducer.rank)
    return state
