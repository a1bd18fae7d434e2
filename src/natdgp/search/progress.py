"""Where a search stands: its trials, and what its searcher makes of their results."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from natdgp.search.decisions import Decision, Ending, Outlook, Verdict
from natdgp.search.draws import point_of, seed_of
from natdgp.search.events import Event, Validated
from natdgp.search.searcher_state import searcher_of
from natdgp.settings import Search
from natdgp.settings.space import Point


@dataclass
class Trial:
    """One trial, as far as the search has heard of it."""

    number: int
    point: Point
    """Its hyperparameters."""
    seed: int
    values: dict[int, float] = field(default_factory=dict)
    """The searched metric after so many steps."""
    length: int = 0
    """Trained so far, in the searcher's unit."""
    verdict: Verdict = Verdict.GO_ON
    """On its last validation."""
    ending: Ending | None = None
    reason: str | None = None
    """Why it is invalid or failed."""

    @property
    def steps(self) -> int:
        """Steps of its last validation."""
        return max(self.values, default=0)


class Progress:
    """A search up to some event; the same events in the same order lead to the same place."""

    def __init__(self, search: Search, events: Iterable[Event] = ()) -> None:
        self.search = search
        self.trials: list[Trial] = []
        self.invalid_in_a_row = 0
        """How many of the trials that ended last were invalid."""
        self._searcher = searcher_of(search)
        self._create(self._searcher.start())
        for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        """Tell the searcher of an event, and do what it decides."""
        trial = self.trials[event.trial]
        if isinstance(event, Validated):
            trial.values[event.steps] = event.value
            trial.length = event.length
            decision = self._searcher.validated(event.trial, event.length, event.value)
            if trial.verdict is Verdict.GO_ON:  # one that ends it stands, whatever comes late
                trial.verdict = decision.verdict
        else:
            trial.ending, trial.reason = event.ending, event.reason
            invalid = event.ending is Ending.INVALID
            self.invalid_in_a_row = self.invalid_in_a_row + 1 if invalid else 0
            decision = self._searcher.ended(event.trial, event.ending)
        self._create(decision)

    @property
    def open(self) -> list[Trial]:
        """Trials that have not ended, in the order in which they were created."""
        return [trial for trial in self.trials if trial.ending is None]

    def rung(self, trial: Trial) -> str:
        """How far a trial has come, as `2 of 3`; empty where there are no rungs."""
        return self._searcher.rung(trial.number)

    @property
    def outlook(self) -> Outlook:
        """How far trials are likely to be trained."""
        return self._searcher.outlook()

    def best_value(self, trial: Trial) -> float | None:
        """The best value of a trial so far; an invalid one has none."""
        values = () if trial.ending is Ending.INVALID else trial.values.values()
        return min(values, key=self.rank, default=None)

    def best_steps(self, trial: Trial) -> int | None:
        """The steps at which a trial was best."""
        best = self.best_value(trial)
        return next((steps for steps, value in trial.values.items() if value == best), None)

    def ranked(self) -> list[Trial]:
        """All trials, the best first and those without a value last."""
        return sorted(self.trials, key=self._place)

    def _place(self, trial: Trial) -> tuple[bool, float, int]:
        best = self.best_value(trial)
        return (best is None, 0.0 if best is None else self.rank(best), trial.number)

    def rank(self, value: float) -> float:
        """A key that sorts the best value first, and what is no number last."""
        if not math.isfinite(value):
            return math.inf
        return value if self.search.searcher.smaller_is_better else -value

    def _create(self, decision: Decision) -> None:
        for number in decision.created:
            assert number == len(self.trials), "trials are numbered as they are created"
            trial = Trial(number, point_of(self.search, number), seed_of(self.search, number))
            self.trials.append(trial)
