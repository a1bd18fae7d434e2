"""A search from the user's side: claim a folder, search, and end with a report or a way on."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from natdgp.run.durable_files import NotSaved
from natdgp.run.exit_status import FAILED, SIGNALLED
from natdgp.run.interruptions import handling
from natdgp.run.process_lock import ProcessLock
from natdgp.run.run_folder import FolderError, write_yaml
from natdgp.run.run_session import located
from natdgp.run.trial_code import copy_trial_code, find_trial_code
from natdgp.search.event_log import EventLog, fingerprint_of
from natdgp.search.optuna_study import write_study
from natdgp.search.runner import Runner
from natdgp.search.search_display import SearchDisplay, trials_in_words
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import most_trials
from natdgp.search.search_report import report_search
from natdgp.search.search_state import SearchState
from natdgp.settings import Search, read_search
from natdgp.settings.configuration import trial_of

PATIENCE = 10.0
"""Seconds for which the trials of a search that was killed may take to end."""


def new_search(search: Search, source: Path, out: Path | None) -> SearchFolder:
    """Claim a folder and put into it all that the search needs from elsewhere.

    :param source: the experiment's context: what its modules and `data.path` are relative to.
    :param out: the folder; by default the first free one under `runs/` with the experiment's name.
    :raises FolderError: if the folder is taken or the trial's module is missing.
    :raises DataError: if the data are missing.
    """
    trial = trial_of(search.config["entrypoint"])
    assert trial is not None, "validated"
    found = find_trial_code(trial, source)
    data = located(search.config["data"], source)
    fingerprint_of(data)  # which has to be there
    folder = SearchFolder.create(out, search.config["name"])
    try:
        copy_trial_code(found, source, folder.code)
        write_yaml(folder.config, {**search.config, "data": data})
    except BaseException:
        shutil.rmtree(folder.root)
        raise
    return folder


def search_and_report(
    console: Console,
    folder: SearchFolder,
    environments: Sequence[Mapping[str, str]],
    *,
    live: bool,
) -> int:
    """Search from where the folder stands, and report.

    :param console: where to write.
    :param environments: variables for each of the trials that may be under way at once.
    :param live: redraw a table.
    :returns: the exit status.
    :raises FolderError: if another process searches in the folder, if its events cannot be used, or
        if the data changed.
    :raises DataError: if the data cannot be read.
    """
    way_on = f"with:\n  natdgp search --resume {shlex.quote(str(folder.shown))}"
    lock = ProcessLock(folder.lock)
    if not lock.hold(PATIENCE):
        raise FolderError(f"{folder.shown} is being searched by another process; end that first")
    try:
        log = EventLog(folder, read_search(folder.config))
        state = log.state
        console.print(_announcement(folder, state), soft_wrap=True)
        display = SearchDisplay(console, state, live=live)
        runner = Runner(log, folder, environments, display.show)
        with display.live or contextlib.nullcontext(), handling(runner.interrupt):
            runner.run()
        write_study(folder, state)
        if runner.failure is not None:
            return _failed(console, runner.failure, f"Go on {way_on}")
        if runner.signal is not None and state.open:
            told = f"{runner.signal.name}; everything is saved. Go on {way_on}"
            console.print(told, soft_wrap=True)
            return SIGNALLED + int(runner.signal)
        return 0 if report_search(console, folder, state) else FAILED
    except NotSaved as error:
        return _failed(console, str(error), f"Once that can be written, go on {way_on}")
    finally:
        lock.release()


def _failed(console: Console, why: str, way_on: str) -> int:
    console.print(f"The search cannot go on: {why}", style="bold red", soft_wrap=True)
    console.print(way_on, soft_wrap=True)
    return FAILED


def _announcement(folder: SearchFolder, state: SearchState) -> str:
    most, likely = state.most_steps, SearchState(state.search).steps_left
    stopped = f", about {likely:,} if trials are stopped as intended" if likely < most else ""
    ended = len(state.trials) - len(state.open)
    begun = "Going on with" if state.steps or ended else "Writing to"
    return (
        f"{begun} {folder.shown}\n"
        f"{state.search.searcher.name}: {trials_in_words(most_trials(state.search))}, "
        f"{most:,} steps at most{stopped}{f'; {ended} have ended already' if ended else ''}. "
        "An estimate of time follows after the first trial."
    )
