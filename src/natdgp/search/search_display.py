"""How a search looks while it goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from natdgp.search.cost import Cost, steps_left
from natdgp.search.events import Ended, Event
from natdgp.search.progress import Progress, Trial
from natdgp.search.wording import (
    columns_of,
    how_far,
    in_words,
    point_in_words,
    state_of,
    time_in_words,
    trials_in_words,
    values_of,
)

ROWS = 12
"""Trials that the table shows besides those under way."""


class SearchDisplay:
    """Shows value, best so far, hyperparameters, rung and time left."""

    def __init__(self, console: Console, cost: Cost, progress: Progress, *, live: bool) -> None:
        """:param live: redraw a table; otherwise print a line when a trial has ended."""
        self._console = console
        self._cost = cost
        self._began = time.monotonic()
        self._taken_before = _steps(progress)
        self._under_way: list[int] = []
        self._live = Live(console=console, refresh_per_second=4, transient=True) if live else None

    def __enter__(self) -> SearchDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begun(self, progress: Progress, trial: Trial) -> None:
        self._under_way.append(trial.number)
        if self._live is None:
            words = point_in_words(progress.search, trial)
            self._console.print(f"trial {trial.number} begins: {words}", soft_wrap=True)
        self._draw(progress)

    def heard(self, progress: Progress, event: Event) -> None:
        if isinstance(event, Ended):
            if event.trial in self._under_way:
                self._under_way.remove(event.trial)
            if self._live is None:
                self._tell_end(progress, progress.trials[event.trial])
        self._draw(progress)

    def waited(self, progress: Progress) -> None:
        self._draw(progress)

    def time_left(self, progress: Progress) -> str:
        """An estimate, once the first trial has ended."""
        taken = _steps(progress) - self._taken_before
        if taken <= 0 or all(trial.ending is None for trial in progress.trials):
            return "known after the first trial"
        per_step = (time.monotonic() - self._began) / taken
        return f"about {time_in_words(per_step * steps_left(progress))}"

    def _tell_end(self, progress: Progress, trial: Trial) -> None:
        metric, value = progress.search.searcher.metric, progress.best_value(trial)
        figure = f": {metric} {value:.4f}" if value is not None else ""
        why = f": {trial.reason}" if trial.reason else ""
        self._console.print(
            f"trial {trial.number} {state_of(trial)} at {how_far(progress, trial)}{figure}{why}",
            soft_wrap=True,
        )
        self._console.print(f"  {self._standing(progress)}", soft_wrap=True)

    def _standing(self, progress: Progress) -> str:
        ended = sum(trial.ending is not None for trial in progress.trials)
        best = progress.ranked()[0]
        value = progress.best_value(best)
        standing = f"best so far {value:.4f} (trial {best.number}), " if value is not None else ""
        return (
            f"{standing}{ended} of {trials_in_words(self._cost.trials)}, time left: "
            f"{self.time_left(progress)}"
        )

    def _draw(self, progress: Progress) -> None:
        if self._live is not None:
            self._live.update(Group(self._standing(progress), self._table(progress)))

    def _table(self, progress: Progress) -> Table:
        """A column for each hyperparameter, or where these do not fit, one for all."""
        wide = self._rows(progress, apart=True)
        needed = wide.__rich_measure__(self._console, self._console.options).minimum
        return wide if needed <= self._console.width else self._rows(progress, apart=False)

    def _rows(self, progress: Progress, *, apart: bool) -> Table:
        search, table = progress.search, Table()
        for heading in ("trial", "state", "step", "rung", search.searcher.metric):
            table.add_column(heading, justify="right", no_wrap=True)
        for heading in columns_of(search).values() if apart else ("hyperparameters",):
            table.add_column(heading, no_wrap=apart)
        under_way = [progress.trials[number] for number in self._under_way]
        ended = [trial for trial in progress.ranked() if trial.ending is not None]
        for trial in [*under_way, *ended[:ROWS]]:
            value = progress.best_value(trial)
            table.add_row(
                str(trial.number),
                "training" if trial in under_way else state_of(trial),
                str(trial.steps),
                progress.rung(trial),
                "" if value is None else f"{value:.4f}",
                *(
                    map(in_words, values_of(search, trial).values())
                    if apart
                    else [point_in_words(search, trial)]
                ),
            )
        return table


def _steps(progress: Progress) -> int:
    return sum(trial.steps for trial in progress.trials)
