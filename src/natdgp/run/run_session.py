"""A run from the user's side: claim a folder, train, and end with a report or a way on."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from natdgp.distributed.rank_channel import RankChannel
from natdgp.run.durable_files import NotSaved
from natdgp.run.exit_status import FAILED, SIGNALLED
from natdgp.run.final_report import conclude
from natdgp.run.journal import Journal
from natdgp.run.local_training import plan_of, train
from natdgp.run.manifest import Manifest
from natdgp.run.process_lock import ProcessLock
from natdgp.run.run_display import Display
from natdgp.run.run_folder import RunFolder, link_to, next_free
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
    folder = RunFolder.create(out or next_free(Path("runs"), experiment.config["name"]))
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
    if not (damaged := folder.set_damaged_aside()):
        return
    for problem in damaged:
        console.print(f"{problem}; that checkpoint is left out", soft_wrap=True)
    journal = Journal(folder.metrics, plan_of(experiment), up_to=sys.maxsize)  # drops nothing
    if (best := journal.best(folder.checkpoints())) is not None:
        link_to(folder.best, best.path)
    else:
        folder.best.unlink(missing_ok=True)


def way_on(folder: RunFolder, slots: int) -> str:
    """The command that goes on with a run as it went."""
    command = f"natdgp train --resume {shlex.quote(str(folder.shown))}"
    return command if slots == 1 else f"{command} --slots {slots}"


def saved_so_far(folder: RunFolder, slots: int, then: str = "Go on with") -> list[str]:
    """Lines about what a run can go on from; none if it has saved nothing."""
    steps = [checkpoint.steps for checkpoint in folder.checkpoints()]
    return [f"Saved up to step {steps[-1]}. {then}:", f"  {way_on(folder, slots)}"] if steps else []


@contextlib.contextmanager
def alone(console: Console, folder: RunFolder, slots: int) -> Iterator[ProcessLock]:
    """Be the one command that trains in a folder, on so many slots, fit to go on from inside.

    :returns: the folder's lock.
    :raises FolderError: if there is another, or if the folder is not fit.
    """
    with folder.occupied() as lock:
        experiment = read_experiment(folder.config)
        fall_back(console, folder, experiment)
        if experiment.slots != slots:
            folder.write_config(experiment.with_slots(slots).config)
        yield lock


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
    with alone(console, folder, slots=1):
        return train_and_report(console, folder, live=live, of_search=of_search)


def train_and_report(
    console: Console,
    folder: RunFolder,
    *,
    live: bool,
    channel: RankChannel | None = None,
    of_search: bool = False,
) -> int:
    """The same for a command that has the folder to itself.

    :param channel: between the ranks, if this is rank 0 of several.
    """
    experiment = read_experiment(folder.config)
    try:
        return _train_and_report(console, folder, experiment, live, channel, of_search)
    except TrainingFailure as error:
        told = [f"The run broke down: {error}"]
    except NotSaved as error:
        then = "Once that can be written, go on with"
        told = [f"The run ended: {error}", *saved_so_far(folder, experiment.slots, then)]
    console.print(told.pop(0), style="bold red", soft_wrap=True)
    for line in told:
        console.print(line, soft_wrap=True)
    return FAILED


def _train_and_report(
    console: Console,
    folder: RunFolder,
    experiment: Experiment,
    live: bool,
    channel: RankChannel | None,
    of_search: bool,
) -> int:
    say = functools.partial(console.print, soft_wrap=True)
    checkpoints, total = folder.checkpoints(), plan_of(experiment).length
    start = checkpoints[-1].steps if checkpoints else 0
    say(
        f"Going on with {folder.shown} from step {start}" if start else f"Writing to {folder.shown}"
    )
    if not checkpoints and folder.manifest.is_file():
        kept = f"; what it has reported goes to {folder.former.name}/" if folder.reports else ""
        say(f"There is no checkpoint: the run begins anew{kept}")
    display = Display(
        console,
        total_steps=total,
        start=start,
        batch_size=experiment.settings.global_batch_size,
        live=live and console.is_terminal,
    )
    seed = experiment.config["reproducibility"]["experiment_seed"]
    stop_decisions = StopDecisions(folder.stop_decisions) if of_search else None
    with Manifest(folder.manifest, seed=seed, slots=experiment.slots) as manifest:
        with display:
            outcome = train(experiment, folder, display, channel, stop_decisions)
        steps, number = outcome.steps, outcome.signal
        if number is not None and not outcome.completed:
            manifest.end("interrupted", steps)
            say(
                f"{number.name} after step {steps} of {total}; everything is saved. "
                f"Go on with:\n  {way_on(folder, experiment.slots)}"
            )
            return SIGNALLED + int(number)
        manifest.end("completed" if outcome.completed else "stopped", steps)
    if steps > total:
        say(
            f"The run stands at step {steps}, beyond its length of {total} "
            "(searcher.max_length): it trains no further."
        )
    elif not outcome.completed:
        say(f"The run ended itself after step {steps} of {total} (early stopping).")
    if steps == start and folder.summary.is_file():
        say("There is nothing left to train; the figures are those that it ended with.")
    elif not of_search:
        speed = display.examples_per_second
        conclude(console, folder, outcome, manifest.seconds, examples_per_second=speed)
    return 0
