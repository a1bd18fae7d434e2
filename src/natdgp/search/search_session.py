"""A search from the user's side: claim a folder, search, and end with a report or a way on."""

from __future__ import annotations

import contextlib
import csv
import io
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from natdgp.run.durable_files import NotSaved, write_whole
from natdgp.run.exit_status import FAILED, SIGNALLED
from natdgp.run.interruptions import handling
from natdgp.run.process_lock import ProcessLock
from natdgp.run.run_folder import Checkpoint, FolderError, RunFolder, link_to, next_free, write_yaml
from natdgp.run.run_session import located
from natdgp.run.trial_code import copy_trial_code, find_trial_code
from natdgp.search.event_log import EventLog, fingerprint_of
from natdgp.search.optuna_study import plain, write_page, write_study
from natdgp.search.runner import Runner
from natdgp.search.search_display import SearchDisplay, point_in_words, trials_in_words
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_state import SearchState, Trial
from natdgp.settings import Search, read_search

PATIENCE = 10.0
"""Seconds for which the trials of a search that was killed may take to end."""


def new_search(search: Search, source: Path, out: Path | None) -> SearchFolder:
    """Claim a folder and put into it all that the search needs from elsewhere.

    :param source: the experiment's context: what its modules and `data.path` are relative to.
    :param out: the folder; by default the first free one under `runs/` with the experiment's name.
    :raises FolderError: if the folder is taken or the trial's module is missing.
    :raises DataError: if the data are missing.
    """
    found = find_trial_code(search.trial, source)
    data = located(search.config["data"], source)
    fingerprint_of(data)  # which has to be there
    folder = SearchFolder.create(out or next_free(Path("runs"), search.config["name"]))
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
    ended = len(state.trials) - len(state.open)
    begun = "Going on with" if state.steps or ended else "Writing to"
    return (
        f"{begun} {folder.shown}\n"
        f"{state.search.searcher.name}: {trials_in_words(state.most_trials)}, "
        f"{state.most_steps:,} steps at most{f'; {ended} have ended already' if ended else ''}. "
        "An estimate of time follows after the first trial."
    )


def report_search(console: Console, folder: SearchFolder, state: SearchState) -> bool:
    """Write and print the outcome; returns whether any trial has a value and a checkpoint of it.

    :raises NotSaved: if the disk refuses.
    """
    write_leaderboard(folder, state)
    write_page(folder, state)
    states = [trial.status for trial in state.trials]
    counts = ", ".join(f"{states.count(each)} {each}" for each in dict.fromkeys(states))
    lines = [f"{trials_in_words(len(states))} ({counts}), {state.steps:,} steps"]
    if fewer := state.most_trials - len(states):
        lines.append(
            f"{trials_in_words(fewer)} never began: halving begins one where another "
            "is stopped or fails, and these trials ended of themselves (early stopping)."
        )
    if found := _best_checkpoint(folder, state):
        lines += _keep_best(folder, state, *found)
    else:
        lines.append(f"No trial left a checkpoint with a value; {folder.leaderboard} says why.")
    console.print("\n".join(lines), soft_wrap=True)
    return found is not None


def _best_checkpoint(folder: SearchFolder, state: SearchState) -> tuple[Trial, Checkpoint] | None:
    """The checkpoint with the best value, and its trial."""
    saved = (
        (trial, checkpoint)
        for trial in state.ranked()
        if state.best_of(trial)[1] is not None
        for checkpoint in RunFolder(folder.trial(trial.number)).checkpoints()
        if checkpoint.steps in trial.values
    )
    return min(saved, key=lambda found: state.rank(found[0].values[found[1].steps]), default=None)


def _keep_best(
    folder: SearchFolder, state: SearchState, best: Trial, checkpoint: Checkpoint
) -> list[str]:
    """Have the best trial at hand; returns lines about it, and about one that was better."""

    def described(trial: Trial, steps: int) -> str:
        value = f"{state.search.searcher.metric} {trial.values[steps]:.4f}"
        return f"trial {trial.number}, {value} after step {steps}"

    config = RunFolder(folder.trial(best.number)).config
    write_whole(folder.best_config, config.read_text(encoding="utf-8"))
    link_to(folder.best, checkpoint.path)
    lines, first = [], state.ranked()[0]
    steps, _ = state.best_of(first)
    if steps is not None and (first, steps) != (best, checkpoint.steps):
        lines.append(f"No checkpoint is left of {described(first, steps)}.")
    lines.append(f"Best: {described(best, checkpoint.steps)}: {point_in_words(best)}")
    shown = folder.shown
    return [
        *lines,
        f"Saved under {shown}:",
        "  leaderboard.csv   all trials, the best first",
        "  search.html       history, rungs, importances, parallel coordinates",
        f"  best.yaml         the best trial: natdgp train {shlex.quote(str(shown / 'best.yaml'))}",
        f"  best              its checkpoint: natdgp.load({str(shown)!r})",
        "  trials            every trial's run",
        "  search.db         all that happened, an Optuna study",
    ]


def write_leaderboard(folder: SearchFolder, state: SearchState) -> None:
    """Write all trials, the best first. A trial's value is its best one, wherever it was stopped.

    :raises NotSaved: if the disk refuses; a former leaderboard is still there.
    """
    rows = []
    for rank, trial in enumerate(state.ranked(), start=1):
        at_step, value = state.best_of(trial)
        row = {"rank": rank, "trial": trial.number, "state": trial.status}
        row |= {state.search.searcher.metric: value, "at_step": at_step, "steps": trial.steps}
        row |= {"rung": trial.rung, **{name: plain(v) for name, v in trial.searched.items()}}
        place = folder.trial(trial.number).relative_to(folder.root)
        rows.append({**row, "seed": trial.seed, "folder": str(place), "reason": trial.reason})
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder.leaderboard, text.getvalue())
