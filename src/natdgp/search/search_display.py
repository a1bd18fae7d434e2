"""How a search looks while it goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta

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
)

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
        self.live = Live(console=console, refresh_per_second=4, transient=True) if live else None
        """To be entered, if there is one, for the time of the search."""

    def show(self, event: SearchEvent | TrialStarted | None) -> None:
        """What happened, and the search after it; without an event, only the time moves on."""
        if isinstance(event, TrialStarted):
            trial = self._state.trials[event.trial]
            self._under_way.append(trial)
            self._print(f"trial {trial.number} begins: {point_in_words(trial)}")
        elif isinstance(event, TrialEnded):
            trial = self._state.trials[event.trial]
            if trial in self._under_way:
                self._under_way.remove(trial)
            rung = f", rung {trial.rung}" if trial.rung else ""
            _, value = self._state.best_of(trial)
            figure = "" if value is None else f": {self._state.search.searcher.metric} {value:.4f}"
            why = f": {trial.reason}" if trial.reason else ""
            self._print(
                f"trial {trial.number} {trial.status} at step {trial.steps}{rung}{figure}{why}"
            )
            self._print(f"  {self._standing()}")
        if self.live is not None:
            self.live.update(Group(self._standing(), self._table()))

    def time_left(self) -> str:
        """An estimate, once the first trial has ended."""
        taken = self._state.steps - self._taken_before
        if taken <= 0 or all(trial.ending is None for trial in self._state.trials):
            return "known after the first trial"
        per_step = (time.monotonic() - self._began) / taken
        return f"about {timedelta(seconds=round(per_step * self._state.steps_left))}"

    def _print(self, line: str) -> None:
        if self.live is None:
            self._console.print(line, soft_wrap=True)

    def _standing(self) -> str:
        ended = len(self._state.trials) - len(self._state.open)
        best = self._state.ranked()[0]
        _, value = self._state.best_of(best)
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
            _, value = self._state.best_of(trial)
            table.add_row(
                str(trial.number),
                "training" if trial in self._under_way else trial.status,
                str(trial.steps),
                trial.rung,
                "" if value is None else f"{value:.4f}",
                point_in_words(trial),
            )
        return table


def point_in_words(trial: Trial) -> str:
    """What is searched over: `model.layers 2, natural_gradient.gamma 0.1`."""
    return ", ".join(
        f"{name} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in trial.searched.items()
    )


def trials_in_words(count: int) -> str:
    """`1 trial`, `2 trials`."""
    return "1 trial" if count == 1 else f"{count} trials"
