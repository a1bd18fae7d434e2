"""Where a search stands: its trials, and what its methods make of their results."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import Any

from natdgp.search.search_methods import (
    Decision,
    SearchMethod,
    TrialEnding,
    methods_of,
    most_trials,
)
from natdgp.settings import Search
from natdgp.settings.searchers import GridSearcher
from natdgp.settings.space import Point
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
    """A trial ended; if it is invalid or failed, for a reason."""

    trial: int
    ending: TrialEnding
    reason: str | None = None


SearchEvent = TrialValidated | TrialEnded
"""What happens in a search from outside its methods: all that has to be remembered of it."""


@dataclass(frozen=True)
class TrialStarted:
    """The process of a trial was started, be it anew or from a checkpoint: nothing to remember."""

    trial: int


@dataclass
class Trial:
    """One trial, as far as the search has heard of it."""

    number: int
    point: Point
    """Its hyperparameters."""
    searched: dict[str, Any]
    """Those that are searched over, as `model.layers`."""
    seed: int
    method: SearchMethod
    """The one that created it, and alone hears of it."""
    values: dict[int, float] = field(default_factory=dict)
    """The searched metric after so many steps."""
    to_end: TrialEnding | None = None
    """How it is to end after its last validation; None: it goes on."""
    ending: TrialEnding | None = None
    reason: str | None = None

    @property
    def last_validation(self) -> int:
        """Steps of its last validation; -1: there was none."""
        return max(self.values, default=-1)

    @property
    def steps(self) -> int:
        """Steps that it is known to have taken."""
        return max(self.last_validation, 0)

    @property
    def status(self) -> str:
        """How it ended, or `open`."""
        return self.ending.value if self.ending else "open"

    @property
    def rung(self) -> str:
        """How far it has come, as `2 of 3`; empty where there are no rungs."""
        return self.method.rung(self.number)


class SearchState:
    """A search up to some event; the same events in the same order lead to the same state.

    Hyperparameters and seed of a trial follow from the experiment's seed and the trial's number.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        self.trials: list[Trial] = []
        self.invalid_in_a_row = 0
        """How many of the trials that ended last were invalid and gave way to others."""
        self._methods = methods_of(search)
        for method in self._methods:
            self._create(method, method.start())

    def take(self, event: SearchEvent) -> None:
        """Tell the trial's method of an event, and do what it decides."""
        trial = self.trials[event.trial]
        if isinstance(event, TrialValidated):
            trial.values[event.steps] = event.value
            decision = trial.method.validated(event.trial, event.length, event.value)
            trial.to_end = trial.to_end or decision.ending  # which stands, whatever comes late
        else:
            trial.ending, trial.reason = event.ending, event.reason
            replaced = event.ending is TrialEnding.INVALID and trial.method.replaces_invalid
            self.invalid_in_a_row = self.invalid_in_a_row + 1 if replaced else 0
            decision = trial.method.ended(event.trial, event.ending)
        self._create(trial.method, decision)

    def _create(self, method: SearchMethod, decision: Decision) -> None:
        for number in decision.created:
            assert number == len(self.trials), "trials are numbered as they are created"
            point = self._point(number)
            searched = self.search.space.searched(point)
            seed = Random(f"{self.search.seed}/{number}/seed").getrandbits(31)
            self.trials.append(Trial(number, point, searched, seed, method))

    def _point(self, number: int) -> Point:
        space = self.search.space
        if isinstance(self.search.searcher, GridSearcher):  # from its last point, as Determined
            return space.grid[-1 - number]
        return space.sample(Random(f"{self.search.seed}/{number}/hyperparameters"))

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
            end = trial.method.likely_end(trial.number) * self._full_length(trial.number)
            steps += max(end - trial.steps, 0)
        for method in self._methods:
            end, following = method.likely_end(), number + method.to_come
            steps += sum(end * self._full_length(n) for n in range(number, following))
            number = following
        return round(steps)

    @property
    def most_steps(self) -> int:
        """Training steps of a search none of whose trials is stopped."""
        return sum(map(self._full_length, range(most_trials(self.search))))

    def _full_length(self, number: int) -> int:
        length = self.search.searcher.max_length.model_dump(exclude_none=True)
        if "batches" in length:
            return int(length["batches"])  # whatever the trial's point, which need not be drawn
        rows = self._point(number)["global_batch_size"]
        return in_batches(length, rows, self.search.config.get("records_per_epoch"))

    def best_of(self, trial: Trial) -> tuple[int, float] | tuple[None, None]:
        """The steps at which a trial was best, and its value there; an invalid one has none."""
        values = {} if trial.ending is TrialEnding.INVALID else trial.values
        steps = min(values, key=lambda steps: self.rank(values[steps]), default=None)
        return (None, None) if steps is None else (steps, values[steps])

    def ranked(self) -> list[Trial]:
        """All trials, the best first and those without a value last."""

        def place(trial: Trial) -> tuple[bool, float]:
            _, value = self.best_of(trial)
            return (value is None, 0.0 if value is None else self.rank(value))

        return sorted(self.trials, key=place)

    def rank(self, value: float) -> float:
        """A key that sorts the best value first, and what is no number last."""
        if not math.isfinite(value):
            return math.inf
        return value if self.search.searcher.smaller_is_better else -value
