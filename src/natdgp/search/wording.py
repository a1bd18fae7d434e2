"""Trials in words, for the screen and the leaderboard."""

from __future__ import annotations

from typing import Any

from natdgp.search.progress import Progress, Trial
from natdgp.settings import Search
from natdgp.settings.space import place_of, value_at


def columns_of(search: Search) -> dict[str, str]:
    """The hyperparameters that are searched over, by place, each under its shortest clear name."""
    names = list(search.space.searched)
    return {name: _shortest(name, names) for name in names}


def values_of(search: Search, trial: Trial) -> dict[str, Any]:
    """What a trial has for each of them."""
    return {name: value_at(trial.point, place_of(name)) for name in search.space.searched}


def in_words(value: Any) -> str:
    """A value, floats to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def point_in_words(search: Search, trial: Trial) -> str:
    """What is searched over, as `layers 2, gamma 0.1`."""
    columns, values = columns_of(search), values_of(search, trial)
    return ", ".join(f"{columns[name]} {in_words(value)}" for name, value in values.items())


def state_of(trial: Trial) -> str:
    """How a trial ended, or that it has not."""
    return "open" if trial.ending is None else trial.ending.value


def trials_in_words(count: int) -> str:
    """`1 trial`, `2 trials`."""
    return "1 trial" if count == 1 else f"{count} trials"


def how_far(progress: Progress, trial: Trial) -> str:
    """`step 250, rung 1 of 3`."""
    rung = progress.rung(trial)
    return f"step {trial.steps}" + (f", rung {rung}" if rung else "")


def time_in_words(seconds: float) -> str:
    """A span of time to the precision that an estimate has."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _shortest(name: str, names: list[str]) -> str:
    """As many of the last parts of a name as tell it from the others."""
    parts = name.split(".")
    fewest = 2 if parts[-1] == "name" else 1  # of what, it does not say
    for count in range(fewest, len(parts)):
        short = ".".join(parts[-count:])
        if sum(other == short or other.endswith(f".{short}") for other in names) == 1:
            return short
    return name
