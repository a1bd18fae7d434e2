"""A run on one machine: the engine's loop over a task, or over a trial of the user's own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from natdgp.checkpoint.compatibility import misfits, other_data
from natdgp.checkpoint.record import ModelRecord
from natdgp.checkpoint.training_state import (
    read_aggregated,
    read_state,
)
from natdgp.checkpoint.weights import complete_checkpoint, load_weights, save_weights
from natdgp.data.table import DataError
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.inducing import TooFewRows
from natdgp.run.driver import (
    EndRequests,
    FollowingDriver,
    Observer,
    RunDriver,
    use_gpu_of,
)
from natdgp.run.journal import Journal
from natdgp.run.rank_channel import RankChannel
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


def journal_of(experiment: Experiment, folder: RunFolder, up_to: int) -> Journal:
    """The journal of a run that stands at a step.

    :raises FolderError: if the file holds something else than reports.
    """
    plan = plan_of(experiment)
    return Journal(
        folder.metrics, up_to=up_to, metric=plan.judge, smaller_is_better=plan.smaller_is_better
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
    """
    storage = experiment.config["checkpoint_storage"]
    with _prepared(experiment, folder, channel) as prepared, EndRequests(channel) as requests:
        latest, model = prepared.latest, prepared.model
        journal = journal_of(experiment, folder, latest.steps if latest else -1)

        def write(path: Path, state: Mapping[str, Any]) -> None:
            save_weights(model, path)
            loop.tell("on_checkpoint_end", str(path))  # which may add files
            complete_checkpoint(model, prepared.record, path, state)

        driver = RunDriver(
            folder,
            journal,
            observer,
            requests,
            write,
            keep_best=storage["save_trial_best"],
            keep_latest=storage["save_trial_latest"],
            stop_decisions=stop_decisions,
        )
        if latest is None:
            folder.set_reports_aside()  # before callbacks open files of theirs
        loop = prepared.loop(driver, channel)
        try:
            ending = loop.run()
        finally:
            driver.close()
        driver.collect()
        best = (driver.best() or folder.checkpoints()[-1:])[0]
        load_weights(model, best.path)
        return Outcome(
            steps=ending.step,
            completed=(journal.last_validation or 0) >= plan_of(experiment).length,
            signal=requests.received if ending.reason == "interrupted" else None,
            best=best.path,
            model=model,
            task=prepared.task,
            validation=journal.figures_at(best.steps),
        )


def follow(experiment: Experiment, folder: RunFolder, channel: RankChannel) -> None:
    """Take part in a run as another rank than 0, which alone writes to the folder.

    :raises TrainingFailure: if a hyperparameter makes training break down, on all ranks.
    """
    with _prepared(experiment, folder, channel) as prepared, EndRequests(channel, leads=False):
        prepared.loop(FollowingDriver(), channel).run()


@dataclass(frozen=True)
class _Prepared:
    """A run of which everything is loaded."""

    experiment: Experiment
    subject: Any
    """A task, or a trial with its face."""
    task: Task
    model: tf.keras.Model
    record: ModelRecord
    latest: Checkpoint | None
    state: Mapping[str, Any]

    def loop(self, driver: Driver, channel: RankChannel | None) -> Loop:
        """The engine's loop, ready to run."""
        plan, model = plan_of(self.experiment), self.model
        callbacks = list(self.subject.callbacks())
        if isinstance(model, NaturalGradientTraining):
            own = build_callbacks(self.experiment.settings, plan.steps_per_epoch)
            callbacks = [*own, *callbacks]
        heartbeat = None
        if channel is not None and channel.heartbeat is not None:
            steps = self.latest.steps if self.latest else 0
            heartbeat = HeartbeatCallback(channel.heartbeat, steps)
            model.reducer.announce(heartbeat.arrive)
        loop = Loop(
            model,
            self.subject.training_data,
            self.subject.validation_data(),
            plan,
            driver,
            callbacks,
            heartbeat,
        )
        if self.state:
            loop.restore(self.state)
        return loop


@contextlib.contextmanager
def _prepared(
    experiment: Experiment, folder: RunFolder, channel: RankChannel | None
) -> Iterator[_Prepared]:
    checkpoints = folder.checkpoints()  # before the ranks have met, and rank 0 may write
    latest = checkpoints[-1] if checkpoints else None
    reducer = _reducer(channel)
    seed = experiment.config["reproducibility"]["experiment_seed"]
    tf.keras.utils.set_random_seed(seed % 2**32)  # what a trial draws by itself
    own_code = experiment.trial not in LIBRARY_TRIALS
    with working_in(folder) if own_code else contextlib.nullcontext():
        subject = _subject(experiment, folder, reducer, seed, latest.steps if latest else 0)
        task = subject if isinstance(subject, Task) else subject.task
        why = too_large_a_batch(experiment.settings, reducer.size)
        if why is not None:
            raise TrainingFailure(why)
        try:
            model = subject.compiled_model()
        except TooFewRows as error:
            raise TrainingFailure(str(error)) from error
        record = subject.model_record(model)
        state: Mapping[str, Any] = {}
        if latest is not None:
            state = _restore(model, record, latest, reducer)
        yield _Prepared(experiment, subject, task, model, record, latest, state)


def _reducer(channel: RankChannel | None) -> Reducer:
    if channel is None:
        use_gpu_of(0)
        return OneProcess()
    from natdgp.distributed.horovod_reducer import HorovodReducer  # only where Horovod is there

    reducer = HorovodReducer()
    use_gpu_of(reducer.rank)
    return reducer


def _subject(
    experiment: Experiment, folder: RunFolder, reducer: Reducer, seed: int, start: int
) -> Any:
    """What is trained: the settings' own task, or the trial that the entrypoint names."""
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
