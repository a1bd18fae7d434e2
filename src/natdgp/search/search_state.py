"""Where a search stands: its trials, and what its methods make of their results."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import Any

from natdgp.search.search_methods import SearchMethod, TrialEnding, methods_of
from natdgp.settings import Search
from natdgp.settings.searchers import GridSearcher
from natdgp.settings.space import Point
from natdgp.settings.spans import in_batches

Event = dict[str, Any]
"""What happens in a search from outside its methods, all that has to be remembered of it: a line
of JSON, as made by :func:`validated` and :func:`ended`."""


def validated(trial: int, steps: int, length: int, value: float) -> Event:
    """A trial was validated.

    :param steps: training steps behind it.
    :param length: trained so far, in the searcher's unit.
    :param value: of the searched metric.
    """
    told = {"trial": trial, "steps": steps, "length": length, "value": value}
    return {"event": "validated", **told}


def ended(trial: int, ending: TrialEnding, reason: str | None = None) -> Event:
    """A trial ended; if it is invalid or failed, for a reason."""
    return {"event": "ended", "trial": trial, "ending": ending.value, "reason": reason}


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
    under_way: bool = False
    """Whether a process trains it now."""
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
        self._sign = 1 if search.searcher.smaller_is_better else -1
        self._methods = methods_of(search)
        for method in self._methods:
            for _ in range(method.wanted):
                self._create(method)

    def take(self, event: Event) -> None:
        """Tell the trial's method of an event, and do what it decides."""
        trial = self.trials[event["trial"]]
        method, wanted = trial.method, trial.method.wanted
        if event["event"] == "validated":
            trial.values[event["steps"]] = event["value"]
            ending = method.validated(trial.number, event["length"], event["value"])
            trial.to_end = trial.to_end or ending  # which stands, whatever comes late
        else:
            trial.ending, trial.reason = TrialEnding(event["ending"]), event["reason"]
            replaced = trial.ending is TrialEnding.INVALID and method.replaces_invalid
            self.invalid_in_a_row = self.invalid_in_a_row + 1 if replaced else 0
            method.ended(trial.number, trial.ending)
        for _ in range(wanted, method.wanted):
            self._create(method)

    def _create(self, method: SearchMethod) -> None:
        number = len(self.trials)
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
    def most_trials(self) -> int:
        """How many trials there are, with those that proved invalid and gave way to others."""
        return sum(method.most_trials for method in self._methods)

    @property
    def steps(self) -> int:
        """Training steps of all trials."""
        return sum(trial.steps for trial in self.trials)

    @property
    def most_steps(self) -> int:
        """Training steps if none of the trials is stopped."""
        length = self.search.searcher.max_length.model_dump(exclude_none=True)
        records = self.search.config.get("records_per_epoch")
        points = map(self._point, range(self.most_trials))
        return sum(in_batches(length, point["global_batch_size"], records) for point in points)

    def best_of(self, trial: Trial) -> tuple[int, float] | tuple[None, None]:
        """The steps at which a trial was best, and its value there; an invalid one has none."""
        if trial.ending is TrialEnding.INVALID or not trial.values:
            return None, None
        steps = min(trial.values, key=lambda steps: self.rank(trial.values[steps]))
        return steps, trial.values[steps]

    def ranked(self) -> list[Trial]:
        """All trials, the best first and those without a value last."""

        def place(trial: Trial) -> float:
            _, value = self.best_of(trial)
            return math.inf if value is None else self.rank(value)

        return sorted(self.trials, key=place)

    def rank(self, value: float) -> float:
        """A key that sorts the best value first."""
        return self._sign * value
