"""`natdgp search`, from the user's side."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from natdgp.run.devices import choose_device, choose_slots, count_gpus, shares_of
from natdgp.run.exit_status import FAILED, MISUSED
from natdgp.run.logging_setup import silence_the_stack
from natdgp.run.options import options_of_training, overrides_of
from natdgp.settings import read_search


def add_search(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of the command line."""
    search = commands.add_parser(
        "search",
        parents=[options_of_training()],
        help="search hyperparameters on this machine",
        description="Run the search of an experiment file on this machine: its searcher decides "
        "as Determined's would, and every trial is a run as by `natdgp train`. Ctrl-C saves the "
        "trials under way; `natdgp search --resume DIR` goes on, also after a kill.",
    )
    search.add_argument("--trials", type=int, metavar="N", help="searcher.max_trials")
    search.add_argument(
        "--jobs", type=int, default=1, metavar="J", help="trials under way at once (default: 1)"
    )
    search.set_defaults(run=_search)


def _search(parsed: argparse.Namespace) -> int:
    if (parsed.file is None) == (parsed.resume is None):
        return _misused("give either an experiment FILE or --resume DIR")
    if parsed.resume is not None and (parsed.out or overrides_of(parsed)):
        return _misused(
            "a search is resumed in its own terms; --out, --set, --seed, --trials and --slots "
            "start a new one from FILE"
        )
    if parsed.jobs < 1:
        return _misused(f"--jobs is {parsed.jobs}, but at least one trial has to be under way")
    search = None if parsed.file is None else read_search(parsed.file, overrides_of(parsed))
    choose_device(parsed.device)
    silence_the_stack()

    # The stack comes in here: after the device is chosen, and only for commands that need it.
    from natdgp.data.table import DataError
    from natdgp.run.durable_files import NotSaved
    from natdgp.run.run_folder import FolderError
    from natdgp.search.search_folder import SearchFolder

    try:
        from natdgp.search.search_session import new_search, search_and_report
    except ModuleNotFoundError as error:
        if error.name not in ("optuna", "plotly"):
            raise
        return _misused(f"{error.name} is not installed; pip install 'natdgp[search]'")

    console = Console(highlight=False, markup=False, emoji=False)
    gpus = count_gpus()
    live = not parsed.no_progress and console.is_terminal
    try:
        if search is None:
            folder = SearchFolder.open(parsed.resume)
            shares = shares_of(parsed.jobs, read_search(folder.config).slots, gpus, os.environ)
        else:
            slots, remark = choose_slots(parsed.slots, search.slots, gpus)
            if remark is not None:
                console.print(remark, soft_wrap=True)
            shares = shares_of(parsed.jobs, slots, gpus, os.environ)
            folder = new_search(search.with_slots(slots), Path.cwd(), parsed.out)
        return search_and_report(console, folder, shares, live=live)
    except (FolderError, DataError) as error:
        return _misused(str(error))
    except NotSaved as error:
        print(f"natdgp search: {error}", file=sys.stderr)
        return FAILED


def _misused(message: str) -> int:
    print(f"natdgp search: {message}", file=sys.stderr)
    return MISUSED
