"""The end of a search: leaderboard, best trial and page."""

from __future__ import annotations

import math
import shlex

from rich.console import Console

from natdgp.run.durable_files import write_whole
from natdgp.run.run_folder import Checkpoint, RunFolder, link_to
from natdgp.search.cost import Cost
from natdgp.search.decisions import Ending
from natdgp.search.leaderboard import write_leaderboard
from natdgp.search.page import write_page
from natdgp.search.progress import Progress, Trial
from natdgp.search.search_folder import SearchFolder
from natdgp.search.searcher_state import replaces_invalid
from natdgp.search.wording import point_in_words, state_of, trials_in_words


def conclude(console: Console, folder: SearchFolder, progress: Progress, cost: Cost) -> bool:
    """Write and print the outcome; returns whether any trial has a value and a checkpoint."""
    write_leaderboard(folder, progress)
    console.print(_endings(progress), soft_wrap=True)
    if (fewer := cost.trials - _counted(progress)) > 0:
        console.print(
            f"{trials_in_words(fewer)} never began: halving begins one where another "
            "is stopped or fails, and these trials ended of themselves (early stopping).",
            soft_wrap=True,
        )
    first = progress.ranked()[0]
    if progress.best_value(first) is None:
        console.print(f"No trial has a value; {folder.leaderboard} says why.", soft_wrap=True)
        return False
    write_page(folder, progress)
    found = _best(folder, progress)
    if found is None:
        console.print(
            f"No trial with a value left a checkpoint; {folder.leaderboard} says why.",
            soft_wrap=True,
        )
        return False
    best, checkpoint = found
    config = RunFolder(folder.trial(best.number)).config
    write_whole(folder.best_config, config.read_text(encoding="utf-8"))
    link_to(folder.best, checkpoint.path)
    words, foremost = _described(progress, best, checkpoint.steps), _described(progress, first)
    if words != foremost:
        console.print(f"No checkpoint is left of {foremost}.", soft_wrap=True)
    console.print(f"Best: {words}: {point_in_words(progress.search, best)}", soft_wrap=True)
    _tell_places(console, folder)
    return True


def _counted(progress: Progress) -> int:
    """Trials that began, but for invalid ones that gave way to others."""
    replaced = {Ending.INVALID} if replaces_invalid(progress.search) else set()
    return sum(trial.ending not in replaced for trial in progress.trials)


def _best(folder: SearchFolder, progress: Progress) -> tuple[Trial, Checkpoint] | None:
    """The checkpoint with the best value, and its trial; any other only if none has a value."""
    saved = [
        (trial, checkpoint)
        for trial in progress.ranked()
        if progress.best_value(trial) is not None
        for checkpoint in RunFolder(folder.trial(trial.number)).checkpoints()
    ]

    def rank(found: tuple[Trial, Checkpoint]) -> float:
        trial, checkpoint = found
        value = trial.values.get(checkpoint.steps)
        return math.inf if value is None else progress.rank(value)

    return min(saved, key=rank, default=None)


def _described(progress: Progress, trial: Trial, steps: int | None = None) -> str:
    """A trial by its value after so many steps, or by its best one."""
    best = progress.best_steps(trial)
    at = steps if steps in trial.values else best
    assert at is not None, "it has a value"
    saved = "" if steps in (None, at) else f" (its checkpoint is of step {steps})"
    metric = progress.search.searcher.metric
    return f"trial {trial.number}, {metric} {trial.values[at]:.4f} after step {at}{saved}"


def _tell_places(console: Console, folder: SearchFolder) -> None:
    root = folder.shown
    console.print(f"Saved under {root}:", soft_wrap=True)
    for name, what in {
        "leaderboard.csv": "all trials, the best first",
        "search.html": "history, rungs, importances, parallel coordinates",
        "best.yaml": "the best trial: natdgp train " + shlex.quote(str(root / "best.yaml")),
        "best": f"its checkpoint: natdgp.load({str(root)!r})",
        "trials": "every trial's run",
        "search.db": "all that happened, an Optuna study",
    }.items():
        console.print(f"  {name:<17} {what}", soft_wrap=True)


def _endings(progress: Progress) -> str:
    states = [state_of(trial) for trial in progress.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    steps = sum(trial.steps for trial in progress.trials)
    return f"{trials_in_words(len(states))} ({counts}), {steps:,} steps"
