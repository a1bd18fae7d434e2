"""How a search looks while it goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from natdgp.search.search_methods import most_trials
from natdgp.search.search_state import (
    SearchEvent,
    SearchState,
    Trial,
    TrialEnded,
    TrialStarted,
    values_of,
)
from natdgp.settings import Search

ROWS = 12
"""Trials that the table shows besides those under way."""


class SearchDisplay:
    """Shows value, best so far, hyperparameters, rung and time left."""

    def __init__(self, console: Console, state: SearchState, *, live: bool) -> None:
        """:param live: redraw a table; otherwise print a line when a trial begins or has ended."""
        self._console = console
        self._state = state
        self._began = time.monotonic()
        self._taken_before = state.steps
        self._under_way: list[Trial] = []
        self._live = Live(console=console, refresh_per_second=4, transient=True) if live else None

    def __enter__(self) -> SearchDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: SearchEvent | TrialStarted | None) -> None:
        """What happened, and the search after it; without an event, only the time moves on."""
        trial = None if event is None else self._state.trials[event.trial]
        if isinstance(event, TrialStarted) and trial is not None:
            self._under_way.append(trial)
            self._print(f"trial {trial.number} begins: {point_in_words(self._state.search, trial)}")
        elif isinstance(event, TrialEnded) and trial is not None:
            if trial in self._under_way:
                self._under_way.remove(trial)
            rung = f", rung {trial.rung}" if trial.rung else ""
            figures = [f"trial {trial.number} {trial.state} at step {trial.steps}{rung}"]
            if (value := self._state.best_value(trial)) is not None:
                figures.append(f"{self._state.search.searcher.metric} {value:.4f}")
            self._print(": ".join([*figures, *filter(None, [trial.reason])]))
            self._print(f"  {self._standing()}")
        if self._live is not None:
            self._live.update(Group(self._standing(), self._table()))

    def time_left(self) -> str:
        """An estimate, once the first trial has ended."""
        taken = self._state.steps - self._taken_before
        if taken <= 0 or all(trial.ending is None for trial in self._state.trials):
            return "known after the first trial"
        per_step = (time.monotonic() - self._began) / taken
        return f"about {time_in_words(per_step * self._state.steps_left)}"

    def _print(self, line: str) -> None:
        if self._live is None:
            self._console.print(line, soft_wrap=True)

    def _standing(self) -> str:
        ended = len(self._state.trials) - len(self._state.open)
        best = self._state.ranked()[0]
        value = self._state.best_value(best)
        standing = f"best so far {value:.4f} (trial {best.number}), " if value is not None else ""
        trials = trials_in_words(most_trials(self._state.search))
        return f"{standing}{ended} of {trials}, time left: {self.time_left()}"

    def _table(self) -> Table:
        search, table = self._state.search, Table()
        for heading in ("trial", "state", "step", "rung", search.searcher.metric):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("hyperparameters")
        ended = [trial for trial in self._state.ranked() if trial.ending is not None]
        for trial in [*self._under_way, *ended[:ROWS]]:
            value = self._state.best_value(trial)
            table.add_row(
                str(trial.number),
                "training" if trial in self._under_way else trial.state,
                str(trial.steps),
                trial.rung,
                "" if value is None else f"{value:.4f}",
                point_in_words(search, trial),
            )
        return table


def point_in_words(search: Search, trial: Trial) -> str:
    """What is searched over, each under its shortest clear name: `layers 2, gamma 0.1`."""
    values = values_of(search, trial)
    return ", ".join(
        f"{_shortest(name, values)} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in values.items()
    )


def trials_in_words(count: int) -> str:
    """`1 trial`, `2 trials`."""
    return "1 trial" if count == 1 else f"{count} trials"


def time_in_words(seconds: float) -> str:
    """A span of time to the precision that an estimate has."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _shortest(name: str, names: Iterable[str]) -> str:
    """As many of the last parts of a name as tell it from the others."""
    parts = name.split(".")
    fewest = 2 if parts[-1] == "name" else 1  # of what, it does not say
    for count in range(fewest, len(parts)):
        short = ".".join(parts[-count:])
        if sum(other == short or other.endswith(f".{short}") for other in names) == 1:
            return short
    return name
