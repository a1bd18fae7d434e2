"""`leaderboard.csv`: all trials of a search, the best first."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from natdgp.run.durable_files import write_whole
from natdgp.search.optuna_study import short
from natdgp.search.progress import Progress, Trial
from natdgp.search.search_folder import SearchFolder
from natdgp.search.wording import state_of, values_of


def write_leaderboard(folder: SearchFolder, progress: Progress) -> None:
    """Write it whole or not at all. A trial's value is its best one, wherever it was stopped."""
    rows = [
        {"rank": rank, **_row(folder, progress, trial)}
        for rank, trial in enumerate(progress.ranked(), start=1)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder.leaderboard, text.getvalue())


def _row(folder: SearchFolder, progress: Progress, trial: Trial) -> dict[str, Any]:
    hyperparameters = {
        short(name): value if isinstance(value, int | float | str) else json.dumps(value)
        for name, value in values_of(progress.search, trial).items()
    }
    return {
        "trial": trial.number,
        "state": state_of(trial),
        progress.search.searcher.metric: progress.best_value(trial),
        "at_step": progress.best_steps(trial),
        "steps": trial.steps,
        "rung": progress.rung(trial),
        **hyperparameters,
        "seed": trial.seed,
        "folder": str(folder.trial(trial.number).relative_to(folder.root)),
        "reason": trial.reason,
    }
