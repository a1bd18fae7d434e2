"""The `natdgp` command."""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import natdgp
from natdgp.distributed.watchdog import LIMIT
from natdgp.run.devices import choose_device, choose_slots, count_gpus
from natdgp.run.exit_status import FAILED, INTERRUPTED, MISUSED
from natdgp.run.logging_setup import silence_the_stack
from natdgp.run.options import options_of_training, overrides_of
from natdgp.run.screen import lasting_screen
from natdgp.search.command import add_search
from natdgp.settings import Experiment, SettingsError, read_experiment, read_search

if TYPE_CHECKING:
    from natdgp.run.run_folder import RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's C++ side, before its import
    parsed = _parser().parse_args(arguments)
    try:
        with lasting_screen():
            return int(parsed.run(parsed))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:  # where no run is there to be saved, or by a second Ctrl-C
        print("natdgp: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="natdgp",
        description="Deep Gaussian processes with natural gradients, on this machine or on a "
        "Determined cluster, from the same experiment file.",
        epilog="On a cluster: det experiment create FILE . (from the repository's root)",
    )
    parser.add_argument("--version", action="version", version=f"natdgp {natdgp.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        parents=[options_of_training()],
        help="train a model on this machine and report its test figures",
        description="Train the model of an experiment file on this machine, or the trial of your "
        "own that it names. Ctrl-C saves a checkpoint and ends the run; "
        "`natdgp train --resume DIR` goes on from it.",
    )
    train.add_argument(
        "--rank-timeout",
        type=float,
        default=LIMIT,
        metavar="SECONDS",
        help="with several slots: end the run, and name the rank, when one has been silent or all "
        "have made no progress for so long; ten times as long for the first step, the first "
        "validation, and while they save (default: %(default)g)",
    )
    train.set_defaults(run=_train)

    add_search(commands)

    check = commands.add_parser(
        "check",
        help="validate experiment files without training",
        description="Read experiment files as `natdgp train` and the trial do, and list every "
        "problem with file, line and remedy. Exit status 0 means that all are valid.",
    )
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.set_defaults(run=_check)
    return parser


def _check(parsed: argparse.Namespace) -> int:
    status = 0
    for file in parsed.files:
        try:
            read_search(file, local=False)
        except SettingsError as error:
            print(error, file=sys.stderr)
            status = FAILED
        else:
            print(f"{file}: valid")
    return status


def _train(parsed: argparse.Namespace) -> int:
    if (parsed.file is None) == (parsed.resume is None):
        return _told("give either an experiment FILE or --resume DIR", MISUSED)
    if parsed.resume is not None and (parsed.out or parsed.overrides or parsed.seed is not None):
        message = "a run is resumed in its own terms; --out, --set and --seed start a new one from "
        return _told(f"{message}FILE", MISUSED)
    if not 0 < parsed.rank_timeout < math.inf:
        return _told(f"--rank-timeout is {parsed.rank_timeout}, but must be above 0", MISUSED)
    overrides = overrides_of(parsed)
    experiment = None if parsed.file is None else read_experiment(parsed.file, overrides)
    choose_device(parsed.device)
    silence_the_stack()

    # TensorFlow comes in here: after the device is chosen, and only for commands that need it.
    from natdgp.checkpoint.checksums import DamagedCheckpoint
    from natdgp.data.table import DataError
    from natdgp.run.durable_files import NotSaved
    from natdgp.run.run_folder import FolderError, RunFolder
    from natdgp.run.run_session import new_run
    from natdgp.training.diagnosis import BadBatch

    try:
        if experiment is None:
            folder = RunFolder.open(parsed.resume)
            _, start = _on_slots(read_experiment(folder.config, overrides), parsed)
            return start(folder)
        experiment, start = _on_slots(experiment, parsed)
        folder = new_run(experiment, Path.cwd(), parsed.out)
        try:
            return start(folder)
        finally:
            folder.discard_unless_begun()
    except (FolderError, DataError, BadBatch) as error:
        return _told(error, MISUSED)
    except (NotSaved, DamagedCheckpoint) as error:
        return _told(error, FAILED)


def _told(message: object, status: int) -> int:
    print(f"natdgp train: {message}", file=sys.stderr)
    return status


def _on_slots(
    experiment: Experiment, parsed: argparse.Namespace
) -> tuple[Experiment, Callable[[RunFolder], int]]:
    """The experiment as this machine trains it, and what trains it in a folder."""
    from natdgp.run.launch import require_horovod, run_on_slots

    gpus = count_gpus()
    slots, remark = choose_slots(parsed.slots, experiment.slots, gpus)
    console = Console(highlight=False, markup=False, emoji=False)
    if remark is not None:
        console.print(remark, soft_wrap=True)
    require_horovod(slots)
    live, limit = not parsed.no_progress, parsed.rank_timeout
    start = functools.partial(
        run_on_slots, console, slots=slots, live=live, gpus=gpus > 0, limit=limit
    )
    return experiment.with_slots(slots), start
