"""A run from the user's side: claim a folder, train, and end with a report or a way on."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from natdgp.checkpoint.checksums import DamagedCheckpoint
from natdgp.checkpoint.record import ModelRecord, NewerFormat
from natdgp.run.driver import best_of
from natdgp.run.durable_files import NotSaved
from natdgp.run.exit_status import FAILED, SIGNALLED
from natdgp.run.final_report import conclude
from natdgp.run.local_training import journal_of, plan_of, train
from natdgp.run.manifest import Manifest
from natdgp.run.process_lock import ProcessLock
from natdgp.run.rank_channel import RankChannel
from natdgp.run.run_display import Display
from natdgp.run.run_folder import FolderError, RunFolder
from natdgp.run.stop_decisions import StopDecisions
from natdgp.run.trial_code import copy_trial_code, find_trial_code
from natdgp.settings.experiment import Experiment, read_experiment
from natdgp.training.diagnosis import TrainingFailure


def new_run(experiment: Experiment, source: Path, out: Path | None) -> RunFolder:
    """Claim a folder and put into it all that the run needs from elsewhere.

    :param experiment: what to run.
    :param source: the experiment's context: what its modules and `data.path` are relative to.
    :param out: the folder; by default the first free one under `runs/` with the experiment's name.
    :raises FolderError: if the folder is taken or the trial's module is missing.
    """
    found = find_trial_code(experiment.trial, source)
    name = experiment.config["name"]
    folder = RunFolder.create(out) if out else RunFolder.create_next(Path("runs"), name)
    try:
        copy_trial_code(found, source, folder.code)
        resolved = experiment.settings.model_dump(mode="json", exclude_none=True)
        data = located(resolved.pop("data"), source)
        folder.write_config({**experiment.config, "data": data, "hyperparameters": resolved})
    except BaseException:
        shutil.rmtree(folder.root)
        raise
    return folder


def located(data: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """The `data` section with an absolute path, for runs that work in other folders."""
    path = {"path": os.path.realpath(source / data["path"])} if "path" in data else {}
    return {**data, **path}


def fall_back(console: Console, folder: RunFolder, experiment: Experiment) -> None:
    """Leave checkpoints that are not as they were written out of a run that goes on.

    :raises FolderError: if a newer natdgp wrote one of the others.
    """
    damaged = 0
    for problem in itertools.chain(folder.set_damaged_aside(), _set_unreadable_aside(folder)):
        console.print(f"{problem}; that checkpoint is left out", soft_wrap=True)
        damaged += 1
    if not damaged:
        return
    if checkpoints := folder.checkpoints():
        journal = journal_of(experiment, folder, sys.maxsize)  # drops nothing
        folder.point_to_best((best_of(checkpoints, journal) or checkpoints[-1:])[0].path)
    else:
        folder.best.unlink(missing_ok=True)


def _set_unreadable_aside(folder: RunFolder) -> Iterator[DamagedCheckpoint]:
    """The same as for damaged ones for those that do not say what model they are of."""
    for checkpoint in folder.checkpoints():
        try:
            ModelRecord.read(checkpoint.path)
        except NewerFormat as error:
            raise FolderError(str(error)) from error
        except DamagedCheckpoint as problem:
            folder.set_aside(checkpoint)
            yield problem


def way_on(folder: RunFolder, slots: int) -> str:
    """The command that goes on with a run as it went."""
    command = f"natdgp train --resume {shlex.quote(str(folder.shown))}"
    return command if slots == 1 else f"{command} --slots {slots}"


@contextlib.contextmanager
def alone(
    console: Console, folder: RunFolder, slots: int
) -> Iterator[tuple[ProcessLock, Experiment]]:
    """Be the one command that trains in a folder, which is fit to go on from inside.

    :returns: the folder's lock, and what is trained there on so many slots.
    :raises FolderError: if there is another, or if the folder is not fit.
    """
    with folder.occupied() as lock:
        folder.check_places()
        experiment = read_experiment(folder.config)
        fall_back(console, folder, experiment)
        if experiment.slots != slots:
            experiment = experiment.with_slots(slots)
            folder.write_config(experiment.config)
        yield lock, experiment


def run_and_report(
    console: Console, folder: RunFolder, *, live: bool, of_search: bool = False
) -> int:
    """Train in this process from the folder's latest checkpoint, or from the start, and report.

    :param console: where to write.
    :param folder: of a new run, or of one to go on with.
    :param live: redraw the progress line if the console is a terminal.
    :param of_search: whether the run is a trial of a search, which judges it and reports.
    :returns: the exit status.
    :raises FolderError: if another command trains there.
    """
    with alone(console, folder, slots=1) as (_, experiment):
        return train_and_report(console, folder, experiment, live=live, of_search=of_search)


def train_and_report(
    console: Console,
    folder: RunFolder,
    experiment: Experiment,
    *,
    live: bool,
    channel: RankChannel | None = None,
    of_search: bool = False,
) -> int:
    """The same for a command that has the folder to itself.

    :param experiment: what is trained in the folder.
    :param channel: between the ranks, if this is rank 0 of several.
    """
    try:
        return _train_and_report(console, folder, experiment, live, channel, of_search)
    except NotSaved as error:
        console.print(f"The run ended: {error}", style="bold red", soft_wrap=True)
        if checkpoints := folder.checkpoints():
            slots = experiment.slots
            console.print(
                f"Saved up to step {checkpoints[-1].steps}. Once that can be written, go on with:\n"
                f"  {way_on(folder, slots)}",
                soft_wrap=True,
            )
        return FAILED


def _train_and_report(
    console: Console,
    folder: RunFolder,
    experiment: Experiment,
    live: bool,
    channel: RankChannel | None,
    of_search: bool,
) -> int:
    config, settings = experiment.config, experiment.settings
    checkpoints = folder.checkpoints()
    start = checkpoints[-1].steps if checkpoints else 0
    if start:
        console.print(f"Going on with {folder.shown} from step {start}", soft_wrap=True)
    else:
        console.print(f"Writing to {folder.shown}", soft_wrap=True)
    if not checkpoints and folder.manifest.is_file():
        kept = f"; what it has reported goes to {folder.former.name}/" if folder.reports else ""
        console.print(f"There is no checkpoint: the run begins anew{kept}", soft_wrap=True)
    slots = experiment.slots
    manifest = Manifest(
        folder.manifest, seed=config["reproducibility"]["experiment_seed"], slots=slots
    )
    began = time.monotonic()
    total = plan_of(experiment).length
    display = Display(
        console,
        total_steps=total,
        start=start,
        batch_size=settings.global_batch_size,
        live=live and console.is_terminal,
    )
    steps, ended_as, reason = start, "failed", None
    stop_decisions = StopDecisions(folder.stop_decisions) if of_search else None
    try:
        with display:
            outcome = train(experiment, folder, display, channel, stop_decisions)
        steps = outcome.steps
        if outcome.signal is not None and not outcome.completed:
            ended_as = "interrupted"
            console.print(
                f"{outcome.signal.name} after step {steps} of {total}; everything is saved. "
                f"Go on with:\n  {way_on(folder, slots)}",
                soft_wrap=True,
            )
            return SIGNALLED + int(outcome.signal)
        ended_as = "completed" if outcome.completed else "stopped"
        if steps > total:
            console.print(
                f"The run stands at step {steps}, beyond its length of {total} "
                "(searcher.max_length): it trains no further.",
                soft_wrap=True,
            )
        elif ended_as == "stopped":
            console.print(f"The run ended itself after step {steps} of {total} (early stopping).")
        if steps == start and folder.summary.is_file():
            console.print(
                "There is nothing left to train; the figures are those that it ended with."
            )
            return 0
    except TrainingFailure as error:
        ended_as, reason = "invalid", str(error)
        return _broken_down(console, error)
    finally:
        seconds = time.monotonic() - began
        with _told(console):
            manifest.close(ended_as=ended_as, steps=steps, seconds=seconds, reason=reason)

    if of_search:
        return 0
    try:
        conclude(
            console,
            folder,
            outcome,
            seconds=manifest.seconds,
            examples_per_second=display.examples_per_second,
        )
    except TrainingFailure as error:
        return _broken_down(console, error)
    return 0


def _broken_down(console: Console, error: TrainingFailure) -> int:
    console.print(f"The run broke down: {error}", style="bold red", soft_wrap=True)
    return FAILED


@contextlib.contextmanager
def _told(console: Console) -> Iterator[None]:
    """Tell what is not saved here, which must not hide what was not saved before, or went well."""
    try:
        yield
    except NotSaved as error:
        console.print(str(error), style="bold red", soft_wrap=True)
