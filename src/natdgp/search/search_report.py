"""The end of a search: leaderboard, page and best trial."""

from __future__ import annotations

import csv
import io
import math
import shlex

from rich.console import Console

from natdgp.run.durable_files import write_whole
from natdgp.run.run_folder import Checkpoint, RunFolder, link_to
from natdgp.search.optuna_study import plain, short, write_page
from natdgp.search.search_display import point_in_words, trials_in_words
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import Ending, most_trials, replaces_invalid
from natdgp.search.search_state import SearchState, Trial, values_of


def report_search(console: Console, folder: SearchFolder, state: SearchState) -> bool:
    """Write and print the outcome; returns whether any trial has a value and a checkpoint.

    :raises NotSaved: if the disk refuses.
    """
    write_leaderboard(folder, state)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    states = [trial.state for trial in state.trials]
    counts = ", ".join(f"{states.count(each)} {each}" for each in dict.fromkeys(states))
    say(f"{trials_in_words(len(states))} ({counts}), {state.steps:,} steps")
    replaced = {Ending.INVALID} if replaces_invalid(state.search) else set()
    begun = sum(trial.ending not in replaced for trial in state.trials)
    if (fewer := most_trials(state.search) - begun) > 0:
        say(
            f"{trials_in_words(fewer)} never began: halving begins one where another "
            "is stopped or fails, and these trials ended of themselves (early stopping)."
        )
    first = state.ranked()[0]
    if state.best_value(first) is None:
        say(f"No trial has a value; {folder.leaderboard} says why.")
        return False
    write_page(folder, state)
    if (found := _best(folder, state)) is None:
        say(f"No trial with a value left a checkpoint; {folder.leaderboard} says why.")
        return False
    best, checkpoint = found
    config = RunFolder(folder.trial(best.number)).config
    write_whole(folder.best_config, config.read_text(encoding="utf-8"))
    link_to(folder.best, checkpoint.path)
    words, foremost = _described(state, best, checkpoint.steps), _described(state, first)
    if words != foremost:
        say(f"No checkpoint is left of {foremost}.")
    say(f"Best: {words}: {point_in_words(state.search, best)}")
    say(f"Saved under {folder.shown}:")
    again = "the best trial: natdgp train " + shlex.quote(str(folder.shown / "best.yaml"))
    for name, what in {
        "leaderboard.csv": "all trials, the best first",
        "search.html": "history, rungs, importances, parallel coordinates",
        "best.yaml": again,
        "best": f"its checkpoint: natdgp.load({str(folder.shown)!r})",
        "trials": "every trial's run",
        "search.db": "all that happened, an Optuna study",
    }.items():
        say(f"  {name:<17} {what}")
    return True


def write_leaderboard(folder: SearchFolder, state: SearchState) -> None:
    """Write all trials, the best first. A trial's value is its best one, wherever it was stopped.

    :raises NotSaved: if the disk refuses; a former leaderboard is still there.
    """
    rows = [
        {
            "rank": rank,
            "trial": trial.number,
            "state": trial.state,
            state.search.searcher.metric: state.best_value(trial),
            "at_step": state.best_steps(trial),
            "steps": trial.steps,
            "rung": trial.rung,
            **{short(name): plain(value) for name, value in values_of(state.search, trial).items()},
            "seed": trial.seed,
            "folder": str(folder.trial(trial.number).relative_to(folder.root)),
            "reason": trial.reason,
        }
        for rank, trial in enumerate(state.ranked(), start=1)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder.leaderboard, text.getvalue())


def _best(folder: SearchFolder, state: SearchState) -> tuple[Trial, Checkpoint] | None:
    """The checkpoint with the best value, and its trial; any other only if none has a value."""
    saved = [
        (trial, checkpoint)
        for trial in state.ranked()
        if state.best_value(trial) is not None
        for checkpoint in RunFolder(folder.trial(trial.number)).checkpoints()
    ]

    def rank(found: tuple[Trial, Checkpoint]) -> float:
        trial, checkpoint = found
        value = trial.values.get(checkpoint.steps)
        return math.inf if value is None else state.rank(value)

    return min(saved, key=rank, default=None)


def _described(state: SearchState, trial: Trial, steps: int | None = None) -> str:
    """A trial by its value after so many steps, or by its best one."""
    best = state.best_steps(trial)
    at = steps if steps in trial.values else best
    assert at is not None, "it has a value"
    saved = "" if steps in (None, at) else f" (its checkpoint is of step {steps})"
    metric = state.search.searcher.metric
    return f"trial {trial.number}, {metric} {trial.values[at]:.4f} after step {at}{saved}"
