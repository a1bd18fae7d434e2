"""The end of a search: leaderboard, page and best trial."""

from __future__ import annotations

import csv
import io
import math
import shlex

from rich.console import Console

from natdgp.run.durable_files import write_whole
from natdgp.run.run_folder import Checkpoint, RunFolder, link_to
from natdgp.search.optuna_study import plain, write_page
from natdgp.search.search_display import point_in_words, trials_in_words
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding, most_trials
from natdgp.search.search_state import SearchState, Trial


def report_search(console: Console, folder: SearchFolder, state: SearchState) -> bool:
    """Write and print the outcome; returns whether any trial has a value and a checkpoint.

    :raises NotSaved: if the disk refuses.
    """
    lines, found = [], _best_checkpoint(folder, state)
    write_leaderboard(folder, state)
    states = [trial.status for trial in state.trials]
    counts = ", ".join(f"{states.count(each)} {each}" for each in dict.fromkeys(states))
    lines.append(f"{trials_in_words(len(states))} ({counts}), {state.steps:,} steps")
    replaced = (t.ending is TrialEnding.INVALID and t.method.replaces_invalid for t in state.trials)
    if (fewer := most_trials(state.search) - len(states) + sum(replaced)) > 0:
        lines.append(
            f"{trials_in_words(fewer)} never began: halving begins one where another "
            "is stopped or fails, and these trials ended of themselves (early stopping)."
        )
    first = state.ranked()[0]
    if state.best_of(first)[1] is None:
        lines.append(f"No trial has a value; {folder.leaderboard} says why.")
    else:
        write_page(folder, state)
        if found is None:
            lines.append(f"No trial with a value left a checkpoint; {folder.leaderboard} says why.")
        else:
            lines += _keep_best(folder, state, first, *found)
    console.print("\n".join(lines), soft_wrap=True)
    return found is not None


def _best_checkpoint(folder: SearchFolder, state: SearchState) -> tuple[Trial, Checkpoint] | None:
    """The checkpoint with the best value, and its trial; any other only if none has a value."""

    def rank(found: tuple[Trial, Checkpoint]) -> float:
        trial, checkpoint = found
        return state.rank(trial.values.get(checkpoint.steps, math.nan))

    saved = (
        (trial, checkpoint)
        for trial in state.ranked()
        if state.best_of(trial)[1] is not None
        for checkpoint in RunFolder(folder.trial(trial.number)).checkpoints()
    )
    return min(saved, key=rank, default=None)


def _keep_best(
    folder: SearchFolder, state: SearchState, first: Trial, best: Trial, checkpoint: Checkpoint
) -> list[str]:
    """Have the best trial at hand; returns lines about it, and about one that was better."""
    config = RunFolder(folder.trial(best.number)).config
    write_whole(folder.best_config, config.read_text(encoding="utf-8"))
    link_to(folder.best, checkpoint.path)
    words, foremost = _described(state, best, checkpoint.steps), _described(state, first)
    lines = [] if words == foremost else [f"No checkpoint is left of {foremost}."]
    lines.append(f"Best: {words}: {point_in_words(best)}")
    lines.append(f"Saved under {folder.shown}:")
    for name, what in {
        "leaderboard.csv": "all trials, the best first",
        "search.html": "history, rungs, importances, parallel coordinates",
        "best.yaml": f"the best trial: natdgp train {shlex.quote(str(folder.shown / 'best.yaml'))}",
        "best": f"its checkpoint: natdgp.load({str(folder.shown)!r})",
        "trials": "every trial's run",
        "search.db": "all that happened, an Optuna study",
    }.items():
        lines.append(f"  {name:<17} {what}")
    return lines


def _described(state: SearchState, trial: Trial, steps: int | None = None) -> str:
    """A trial by its value after so many steps, or by its best one."""
    at = steps if steps in trial.values else state.best_of(trial)[0]
    assert at is not None, "it has a value"
    saved = "" if steps in (None, at) else f" (its checkpoint is of step {steps})"
    metric = state.search.searcher.metric
    return f"trial {trial.number}, {metric} {trial.values[at]:.4f} after step {at}{saved}"


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
