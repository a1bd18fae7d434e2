"""The end of a search: leaderboard, best trial and page."""

from __future__ import annotations

import shlex
import shutil

from rich.console import Console

from natdgp.local.folder import RunFolder, link_to
from natdgp.search.folder import SearchFolder
from natdgp.search.leaderboard import write_leaderboard
from natdgp.search.page import write_page
from natdgp.search.progress import Progress
from natdgp.search.words import point_in_words, state_of


def conclude(console: Console, folder: SearchFolder, progress: Progress) -> bool:
    """Write and print the outcome; returns whether any trial has a value."""
    write_leaderboard(folder, progress)
    best = progress.ranked()[0]
    value = progress.best_value(best)
    console.print(_endings(progress), soft_wrap=True)
    if value is None:
        console.print(f"No trial has a value; {folder.leaderboard} says why.", soft_wrap=True)
        return False
    write_page(folder, progress)
    run = RunFolder(folder.trial(best.number))
    shutil.copyfile(run.config, folder.best_config)
    link_to(folder.best, run.best.resolve())

    metric, root = progress.search.searcher.metric, folder.shown
    console.print(
        f"Best: trial {best.number}, {metric} {value:.4f} after step {progress.best_steps(best)}: "
        f"{point_in_words(progress.search, best)}",
        soft_wrap=True,
    )
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
    return True


def _endings(progress: Progress) -> str:
    states = [state_of(trial) for trial in progress.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    steps = sum(trial.steps for trial in progress.trials)
    return f"{len(states)} trials ({counts}), {steps:,} steps"
