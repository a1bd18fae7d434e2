"""A whole run on one machine: the trial through Determined's controller, then the report."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import determined as det
import tensorflow as tf
from determined import core, horovod, load

from natdgp.distributed.heartbeat import Heartbeat
from natdgp.run.contexts import (
    LocalCheckpointContext,
    Observer,
    SignalPreemptContext,
    following_core_context,
    local_core_context,
)
from natdgp.run.durable_files import NotSaved, saving
from natdgp.run.journal import Journal
from natdgp.run.rank_channel import RankChannel
from natdgp.run.run_folder import Checkpoint, FolderError, RunFolder
from natdgp.run.slots import slots_of
from natdgp.run.verdicts import Verdicts
from natdgp.settings import Experiment
from natdgp.settings.spans import in_batches


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


def find_trial_code(spec: str, source: Path) -> Path | None:
    """The module of a trial, or the package it lies in, relative to the source folder.

    :param spec: `module:Class`, as Determined's launchers take it.
    :param source: the folder that modules are relative to: the experiment's context.
    :returns: None for a module that is installed, which need not be carried along.
    :raises FolderError: if the module is nowhere.
    """
    module = spec.partition(":")[0]
    top, *rest = module.split(".")
    package = source.joinpath(top, *rest)
    path = package.with_suffix(".py")
    if os.path.isfile(package / "__init__.py"):
        return Path(top)
    if os.path.isfile(path):
        return Path(top) if rest else Path(path.name)
    with contextlib.suppress(ModuleNotFoundError):  # of a parent
        if importlib.util.find_spec(module) is not None:
            return None
    raise FolderError(
        f"the entrypoint names the trial {spec}, but there is no {path}; run the command from the "
        "folder that the module is relative to"
    )


def copy_trial_code(found: Path, source: Path, code: Path) -> None:
    """Copy what :func:`find_trial_code` found into a run's folder.

    :raises NotSaved: if it cannot be copied.
    """
    ours, ignored = source / found, shutil.ignore_patterns("__pycache__")
    with saving(code / found):
        if ours.is_dir():
            shutil.copytree(ours, code / found, ignore=ignored)
        else:
            shutil.copy2(ours, code / found)


def length_in_batches(experiment: Experiment) -> int:
    """The configured length of a run in training steps, by the sequencer's own arithmetic."""
    config = experiment.config
    return in_batches(
        config["searcher"]["max_length"],
        experiment.settings.global_batch_size,
        config.get("records_per_epoch"),
    )


def journal_of(experiment: Experiment, folder: RunFolder, up_to: int) -> Journal:
    """The journal of a run that stands at a step.

    :raises FolderError: if the file holds something else than reports.
    """
    searcher = experiment.config["searcher"]
    return Journal(
        folder.metrics,
        up_to=up_to,
        metric=searcher["metric"],
        smaller_is_better=searcher["smaller_is_better"],
    )


def train(
    experiment: Experiment,
    folder: RunFolder,
    observer: Observer,
    channel: RankChannel | None = None,
    verdicts: Verdicts | None = None,
) -> Outcome:
    """Train until the configured length, a stop of the trial's own, or a signal.

    :param experiment: what to train.
    :param folder: the run's folder; if it holds checkpoints, the run goes on from the latest.
    :param observer: is told what happens.
    :param channel: between the ranks, if this is rank 0 of several.
    :param verdicts: what to wait for after every validation, if a search judges the run.
    :raises determined.InvalidHP: if a hyperparameter makes training break down.
    :raises NotSaved: if the disk refuses what has to be kept.
    """
    config = experiment.config
    storage = config["checkpoint_storage"]
    with _prepared(experiment, folder) as (trial_class, env, distributed):
        anew = env.latest_checkpoint is None
        journal = journal_of(experiment, folder, -1 if anew else env.steps_completed)
        core_context = local_core_context(
            folder,
            journal,
            observer,
            max_length=config["searcher"]["max_length"],
            keep_best=storage["save_trial_best"],
            keep_latest=storage["save_trial_latest"],
            distributed=distributed,
            channel=channel,
            verdicts=verdicts,
        )
        with _saving_events(folder.tensorboard):
            controller = _run(
                trial_class,
                core_context,
                env,
                channel.heartbeat if channel else None,
                ready=folder.set_reports_aside if anew else None,
            )
        if controller.breakdown is not None:
            raise controller.breakdown

        checkpoint_context = core_context.checkpoint
        assert isinstance(checkpoint_context, LocalCheckpointContext)
        preempt = core_context.preempt
        assert isinstance(preempt, SignalPreemptContext)
        checkpoint_context.collect()
        best = checkpoint_context.best() or folder.checkpoints()[-1:]
        return Outcome(
            steps=controller.steps_completed,
            completed=(journal.last_validation or 0) >= length_in_batches(experiment),
            signal=preempt.signal,
            best=best[0].path,
        )


def follow(experiment: Experiment, folder: RunFolder, channel: RankChannel) -> None:
    """Take part in a run as another rank than 0, which alone writes to the folder.

    :raises determined.InvalidHP: if a hyperparameter makes training break down, on all ranks.
    """
    with _prepared(experiment, folder) as (trial_class, env, distributed):
        core_context = following_core_context(
            folder,
            max_length=experiment.config["searcher"]["max_length"],
            distributed=distributed,
            channel=channel,
        )
        _run(trial_class, core_context, env, channel.heartbeat)


@contextlib.contextmanager
def _prepared(
    experiment: Experiment, folder: RunFolder
) -> Iterator[tuple[type[det.LegacyTrial], det.EnvContext, core.DistributedContext]]:
    """The trial's class, its environment, and this process among the ranks of the run."""
    checkpoints = folder.checkpoints()  # before the ranks have met, and rank 0 may write
    env = _environment(experiment, checkpoints[-1] if checkpoints else None)
    backend = det._DistributedBackend()
    with _working_in(folder):
        trial_class = _trial_class(experiment.trial, folder)
        load.get_trial_controller_class(trial_class).pre_execute_hook(env, backend)
        distributed = (
            core.DistributedContext.from_horovod(horovod.hvd)
            if backend.use_horovod()
            else core.DummyDistributedContext()
        )
        yield trial_class, env, distributed


def _trial_class(spec: str, folder: RunFolder) -> type[det.LegacyTrial]:
    """:raises FolderError: if the module has no such trial."""
    name, _, class_name = spec.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # what the trial itself imports
        raise FolderError(
            f"the entrypoint names the trial {spec}, but {folder.code} has no module {error.name}; "
            f"{folder.code_from_elsewhere}"
        ) from error
    found = vars(module).get(class_name)
    if not _is_trial(found):
        own = {one: value for one, value in vars(module).items() if _is_trial(value)}
        trials = [one for one, value in own.items() if value.__module__ == name]
        raise FolderError(
            f"the entrypoint names the trial {spec}, but {class_name} is no trial in {name}; "
            f"it has these: {', '.join(trials) or 'none'}"
        )
    trial_class: type[det.LegacyTrial] = load.trial_class_from_entrypoint(spec)
    return trial_class


def _is_trial(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, det.LegacyTrial)


def _run(
    trial_class: type[det.LegacyTrial],
    core_context: core.Context,
    env: det.EnvContext,
    heartbeat: Heartbeat | None,
    ready: Callable[[], None] | None = None,
) -> Any:
    """Run the trial to its end; returns its controller.

    :param ready: is called when data, model and checkpoint are loaded, before the first step.
    """
    with _started(core_context):
        context = trial_class.trial_context_class(core_context, env)
        controller = load.get_trial_controller_class(trial_class).from_trial(
            trial_inst=trial_class(context), context=context, env=env
        )
        if heartbeat is not None:
            controller.show(heartbeat)
        if ready is not None:
            ready()
        controller.run()
        return controller


def _environment(experiment: Experiment, latest: Checkpoint | None) -> det.EnvContext:
    """What the harness would read from a container's environment."""
    config = experiment.config
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == "-1"
    gpus = [] if hidden else det._execution._get_gpus(slots_of(experiment))[1]
    return det.EnvContext(
        master_url="",
        master_cert_file=None,
        master_cert_name=None,
        experiment_config=copy.deepcopy(config),
        hparams=config["hyperparameters"],
        latest_checkpoint=latest.path.name if latest else None,
        steps_completed=latest.steps if latest else 0,
        use_gpu=bool(gpus),
        container_gpus=gpus,
        slot_ids=list(range(len(gpus))),
        debug=config["debug"],
        det_trial_id="1",
        det_experiment_id="1",
        det_agent_id="local",
        det_cluster_id="local",
        trial_seed=config["reproducibility"]["experiment_seed"],
        trial_run_id=1,
        allocation_id="local",
        managed_training=True,
        test_mode=False,
        on_cluster=False,
    )


@contextlib.contextmanager
def _saving_events(place: Path) -> Iterator[None]:
    """Around training, in the midst of which TensorBoard's files are written.

    :raises NotSaved: for what TensorFlow says against writing there.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not error.message.startswith(str(place)):
            raise
        raise NotSaved(f"{place} cannot be written: {error.message}") from error


@contextlib.contextmanager
def _working_in(folder: RunFolder) -> Iterator[None]:
    """Run as in a container: the trial's code is the working directory, and comes first.

    :raises FolderError: if the code is not there.
    """
    before, code = os.getcwd(), str(folder.code.resolve())
    try:
        os.chdir(code)
    except OSError as error:
        raise FolderError(
            f"{folder.code}, the folder of the trial's code, cannot be entered: {error.strerror}; "
            f"{folder.code_from_elsewhere}"
        ) from error
    sys.path.insert(0, code)
    try:
        yield
    finally:
        sys.path.remove(code)
        os.chdir(before)


@contextlib.contextmanager
def _started(context: core.Context) -> Iterator[None]:
    context.start()
    try:
        yield
    finally:
        context.close()
