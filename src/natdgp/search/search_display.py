"""How a search looks while it goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from natdgp.search.search_state import SearchState, Trial

ROWS = 12
"""Trials that the table shows besides those under way."""


class SearchDisplay:
    """Shows value, best so far, hyperparameters, rung and time left."""

    def __init__(self, console: Console, state: SearchState, *, live: bool) -> None:
        """:param live: redraw a table; otherwise print a line when a trial begins or has ended."""
        self._console = console
        self._state = state
        self._began = time.monotonic()
        self._end: float | None = None
        self._ended_here = 0
        self.live = Live(console=console, refresh_per_second=4, transient=True) if live else None
        """To be entered, if there is one, for the time of the search."""

    def show(self, trial: Trial | None) -> None:
        """A trial that begins or has ended, and the search with it; None: only time went by."""
        if trial is not None and trial.ending is not None:
            now = time.monotonic()
            self._ended_here += 1
            to_come = self._state.most_trials - self._ended
            self._end = now + (now - self._began) / self._ended_here * to_come
        if self.live is not None:
            self.live.update(Group(self._standing(), self._table()))
        elif trial is not None:
            self._console.print(self._line(trial), soft_wrap=True)

    def _line(self, trial: Trial) -> str:
        if trial.ending is None:
            return f"trial {trial.number} begins: {point_in_words(trial)}"
        rung = f", rung {trial.rung}" if trial.rung else ""
        _, value = self._state.best_of(trial)
        figure = "" if value is None else f": {self._state.search.searcher.metric} {value:.4f}"
        why = f": {trial.reason}" if trial.reason else ""
        told = f"trial {trial.number} {trial.status} at step {trial.steps}{rung}{figure}{why}"
        return f"{told}\n  {self._standing()}"

    def time_left(self) -> str:
        """An estimate, once a trial has ended: those to come take as long as those before."""
        if self._end is None:
            return "known after the first trial"
        return f"about {timedelta(seconds=round(max(self._end - time.monotonic(), 0)))}"

    def _standing(self) -> str:
        state = self._state
        best = state.ranked()[0]
        _, value = state.best_of(best)
        standing = f"best so far {value:.4f} (trial {best.number}), " if value is not None else ""
        trials = trials_in_words(state.most_trials)
        return f"{standing}{self._ended} of {trials}, time left: {self.time_left()}"

    @property
    def _ended(self) -> int:
        return len(self._state.trials) - len(self._state.open)

    def _table(self) -> Table:
        state, table = self._state, Table()
        for heading in ("trial", "state", "step", "rung", state.search.searcher.metric):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("hyperparameters")
        ended = [trial for trial in state.ranked() if trial.ending is not None]
        for trial in [*(trial for trial in state.trials if trial.under_way), *ended[:ROWS]]:
            _, value = state.best_of(trial)
            status = "training" if trial.under_way else trial.status
            figure = "" if value is None else f"{value:.4f}"
            cells = (str(trial.number), status, str(trial.steps), trial.rung, figure)
            table.add_row(*cells, point_in_words(trial))
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
