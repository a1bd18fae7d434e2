"""Which trials a search has and which of them go on: the searchers of Determined 0.38.1."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from enum import Enum

from natdgp.settings import Search
from natdgp.settings.searchers import Bracket, GridSearcher, HalvingSearcher, RandomSearcher


class TrialEnding(str, Enum):
    """How a trial ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"  # not among the best at its rung
    INVALID = "invalid"  # hyperparameters that cannot be trained
    FAILED = "failed"


class SearchMethod:
    """Says when a trial begins, and which trials go on.

    Without rungs all go on, and each that ends makes room for another (single, random and grid).
    With rungs it is one bracket of asynchronous successive halving in the form that stops trials: a
    trial that reaches a rung goes on if its value is among the best 1/divisor of all values that
    the rung has seen so far, or the best one of fewer. (ASHA of Li et al. 2020 would pause it and
    promote it later; here it is decided once.)

    Decisions are a function of what it was told and in which order, so that telling it the same
    again makes it what it was.
    """

    def __init__(
        self, bracket: Bracket, *, smaller_is_better: bool, replaces_invalid: bool = True
    ) -> None:
        """:param replaces_invalid: whether an invalid trial gives way to another point."""
        self.replaces_invalid = replaces_invalid
        self.wanted = bracket.concurrent
        """How many trials are to have begun by now."""
        self.most_trials = bracket.max_trials
        """How many there are, with those that proved invalid and gave way to others."""
        self._bracket = bracket
        self._sign = 1.0 if smaller_is_better else -1.0
        self._rungs: list[list[tuple[float, int]]] = [[] for _ in bracket.rungs]
        self._reached: defaultdict[int, int] = defaultdict(int)  # how many rungs, by trial
        self._over: set[int] = set()  # trials that ended, or are to end

    def validated(self, trial: int, length: int, value: float) -> TrialEnding | None:
        """Hear of a validation; returns how the trial is to end, or None if it goes on.

        Results of a trial that is to end, or has ended, change nothing.

        :param length: trained so far, in the searcher's unit.
        :param value: of the searched metric.
        """
        ending = None if trial in self._over else self._judge(trial, length, self._sign * value)
        if ending is not None:
            self._over.add(trial)
            self._make_room()
        return ending

    def ended(self, trial: int, ending: TrialEnding) -> None:
        """Hear of a trial's end. Halving begins no other one where a trial ends of itself."""
        expected = trial in self._over
        self._over.add(trial)
        if ending is TrialEnding.INVALID:
            for rung in self._rungs:
                rung[:] = [entry for entry in rung if entry[1] != trial]
            self.most_trials += self.replaces_invalid
        elif self._rungs:
            if expected or ending is not TrialEnding.FAILED:
                return
            self._insert(self._reached[trial], trial, math.inf)
        self._make_room()

    def rung(self, trial: int) -> str:
        """How far a trial has come, as `2 of 3`; empty where there are no rungs."""
        return f"{self._reached[trial]} of {len(self._rungs)}" if self._rungs else ""

    def _make_room(self) -> None:
        self.wanted = min(self.wanted + 1, self.most_trials)

    def _judge(self, trial: int, length: int, value: float) -> TrialEnding | None:
        """Pass all rungs that the trial has reached: validations may skip some."""
        for rung in range(self._reached[trial], len(self._rungs)):
            if length < self._bracket.rungs[rung]:
                break
            place = self._insert(rung, trial, value)
            self._reached[trial] = rung + 1
            if rung + 1 == len(self._rungs):
                return TrialEnding.COMPLETED
            if place >= max(int(len(self._rungs[rung]) / self._bracket.divisor), 1):
                return TrialEnding.STOPPED
        return None

    def _insert(self, rung: int, trial: int, value: float) -> int:
        """Note a value at a rung, before equal ones; returns its place, the best being 0."""
        entries = self._rungs[rung]
        place = bisect.bisect_left(entries, value, key=lambda entry: entry[0])
        entries.insert(place, (value, trial))
        return place


def methods_of(search: Search) -> list[SearchMethod]:
    """New methods, told nothing yet, which share the trials of a search."""
    searcher, smaller = search.searcher, search.searcher.smaller_is_better
    if isinstance(searcher, HalvingSearcher):
        return [SearchMethod(each, smaller_is_better=smaller) for each in searcher.brackets]
    grid = isinstance(searcher, GridSearcher)
    trials = search.space.grid_size if grid else getattr(searcher, "max_trials", 1)
    concurrent = getattr(searcher, "max_concurrent_trials", 0) or trials
    bracket = Bracket((), 1.0, trials, min(concurrent, trials))
    again = isinstance(searcher, RandomSearcher)
    return [SearchMethod(bracket, smaller_is_better=smaller, replaces_invalid=again)]
