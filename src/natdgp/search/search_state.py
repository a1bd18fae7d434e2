"""Where a search stands: its trials, and what its methods make of their results."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import Any

from natdgp.search.search_methods import (
    Decision,
    Ending,
    SearchMethod,
    TrialAction,
    methods_of,
    most_trials,
)
from natdgp.settings import Search
from natdgp.settings.searchers import GridSearcher
from natdgp.settings.space import Point, place_of, value_at
from natdgp.settings.spans import in_batches


@dataclass(frozen=True)
class TrialValidated:
    """A trial was validated."""

    trial: int
    steps: int
    """Training steps behind it."""
    length: int
    """Trained so far, in the searcher's unit."""
    value: float
    """Of the searched metric."""


@dataclass(frozen=True)
class TrialEnded:
    """A trial ended."""

    trial: int
    ending: Ending
    reason: str | None = None
    """Why, if it is invalid or failed."""


SearchEvent = TrialValidated | TrialEnded
"""What happens in a search from outside its methods: all that has to be remembered of it."""


@dataclass(frozen=True)
class TrialStarted:
    """The process of a trial was started, be it anew or from a checkpoint: of no lasting effect."""

    trial: int


@dataclass
class Trial:
    """One trial, as far as the search has heard of it."""

    number: int
    point: Point
    """Its hyperparameters."""
    seed: int
    method: SearchMethod
    """The one that created it, and alone hears of it."""
    values: dict[int, float] = field(default_factory=dict)
    """The searched metric after so many steps."""
    action: TrialAction = TrialAction.CONTINUE
    """After its last validation."""
    ending: Ending | None = None
    reason: str | None = None
    """Why it is invalid or failed."""

    @property
    def steps(self) -> int:
        """Steps of its last validation."""
        return max(self.values, default=0)

    @property
    def state(self) -> str:
        """How it ended, or `open`."""
        return "open" if self.ending is None else self.ending.value

    @property
    def rung(self) -> str:
        """How far it has come, as `2 of 3`; empty where there are no rungs."""
        return self.method.rung(self.number)


class SearchState:
    """A search up to some event; the same events in the same order lead to the same state."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.trials: list[Trial] = []
        self.invalid_in_a_row = 0
        """How many of the trials that ended last were invalid."""
        self._methods = methods_of(search)
        for method in self._methods:
            self._create(method, method.start())

    def take(self, event: SearchEvent) -> None:
        """Tell the trial's method of an event, and do what it decides."""
        trial = self.trials[event.trial]
        if isinstance(event, TrialValidated):
            trial.values[event.steps] = event.value
            decision = trial.method.validated(event.trial, event.length, event.value)
            if trial.action is TrialAction.CONTINUE:  # one that ends it stands, whatever comes late
                trial.action = decision.action
        else:
            trial.ending, trial.reason = event.ending, event.reason
            invalid = event.ending is Ending.INVALID
            self.invalid_in_a_row = self.invalid_in_a_row + 1 if invalid else 0
            decision = trial.method.ended(event.trial, event.ending)
        self._create(trial.method, decision)

    @property
    def open(self) -> list[Trial]:
        """Trials that have not ended, in the order in which they were created."""
        return [trial for trial in self.trials if trial.ending is None]

    @property
    def steps(self) -> int:
        """Training steps of all trials."""
        return sum(trial.steps for trial in self.trials)

    @property
    def steps_left(self) -> int:
        """Training steps that are likely to come, if trials are stopped as intended."""
        steps, number = 0.0, len(self.trials)
        for trial in self.open:
            length = full_length(self.search, trial.number)
            steps += max(trial.method.likely_end(trial.number) * length - trial.steps, 0)
        for method in self._methods:
            end, following = method.likely_end(), number + method.to_come
            steps += sum(end * full_length(self.search, n) for n in range(number, following))
            number = following
        return round(steps)

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

        def place(trial: Trial) -> tuple[bool, float, int]:
            best = self.best_value(trial)
            return (best is None, 0.0 if best is None else self.rank(best), trial.number)

        return sorted(self.trials, key=place)

    def rank(self, value: float) -> float:
        """A key that sorts the best value first, and what is no number last."""
        if not math.isfinite(value):
            return math.inf
        return value if self.search.searcher.smaller_is_better else -value

    def _create(self, method: SearchMethod, decision: Decision) -> None:
        for number in decision.created:
            assert number == len(self.trials), "trials are numbered as they are created"
            point, seed = point_of(self.search, number), seed_of(self.search, number)
            self.trials.append(Trial(number, point, seed, method))


def point_of(search: Search, number: int) -> Point:
    """The hyperparameters of a trial, which follow from the experiment's seed and its number.

    A grid is searched from its last point, as Determined does.
    """
    if isinstance(search.searcher, GridSearcher):
        return search.space.grid_point(search.space.grid_size - 1 - number)
    return search.space.sample(Random(f"{search.seed}/{number}/hyperparameters"))


def seed_of(search: Search, number: int) -> int:
    """The seed of a trial, below 2**31."""
    return Random(f"{search.seed}/{number}/seed").getrandbits(31)


def values_of(search: Search, trial: Trial) -> dict[str, Any]:
    """The hyperparameters of a trial that are searched over, by their place."""
    return {name: value_at(trial.point, place_of(name)) for name in search.space.searched}


def most_steps(search: Search) -> int:
    """Training steps of a search none of whose trials is stopped."""
    return sum(full_length(search, number) for number in range(most_trials(search)))


def full_length(search: Search, number: int) -> int:
    """Training steps of a trial that is not stopped."""
    length = search.searcher.max_length.model_dump(exclude_none=True)
    if (batches := length.get("batches")) is not None:
        return int(batches)  # whatever the trial's point, which need not be drawn
    rows = point_of(search, number)["global_batch_size"]
    return in_batches(length, rows, search.config.get("records_per_epoch"))
