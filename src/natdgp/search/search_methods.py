"""Which trials a search has and which of them go on: the searchers of Determined 0.38.1."""

from __future__ import annotations

import bisect
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from natdgp.settings import Search
from natdgp.settings.searchers import Bracket, GridSearcher, HalvingSearcher, RandomSearcher


class TrialEnding(str, Enum):
    """How a trial ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"  # not among the best at its rung
    INVALID = "invalid"  # hyperparameters that cannot be trained
    FAILED = "failed"


@dataclass(frozen=True)
class Decision:
    """Numbers of trials to create, and how the trial that was validated is to end, if it is."""

    created: tuple[int, ...] = ()
    ending: TrialEnding | None = None


class SearchMethod:
    """Creates a number of trials, and decides which go on: here all (single, random and grid).

    Decisions are a function of what it was told and in which order, so that telling it the same
    again makes it what it was.
    """

    def __init__(self, trials: int, concurrent: int, numbers: Iterator[int], again: bool) -> None:
        """:param concurrent: trials under way at once; 0: all.
        :param numbers: gives a new trial its number.
        :param again: whether an invalid trial gives way to another point.
        """
        self.replaces_invalid = again
        self._left = trials
        self._concurrent = concurrent or trials
        self._numbers = numbers
        self._open: set[int] = set()

    def start(self) -> Decision:
        """The first trials."""
        return Decision(self._create(self._concurrent))

    def validated(self, trial: int, length: int, value: float) -> Decision:
        """A trial was validated.

        :param length: trained so far, in the searcher's unit.
        :param value: of the searched metric.
        """
        return Decision()

    def ended(self, trial: int, ending: TrialEnding) -> Decision:
        """A trial ended."""
        self._open.discard(trial)
        self._left += ending is TrialEnding.INVALID and self.replaces_invalid
        return Decision(self._create())

    def rung(self, trial: int) -> str:
        """How far a trial has come, as `2 of 3`; empty where there are no rungs."""
        return ""

    @property
    def to_come(self) -> int:
        """How many trials are likely to be created yet."""
        return self._left

    def likely_end(self, trial: int | None = None) -> float:
        """The share of its full length to which a trial, or a new one, is likely to be trained."""
        return 1.0

    def _create(self, most: int = 1) -> tuple[int, ...]:
        """New trials, as far as there are any left."""
        created = tuple(itertools.islice(self._numbers, min(most, self._left)))
        self._left -= len(created)
        self._open.update(created)
        return created


class SuccessiveHalving(SearchMethod):
    """One bracket of asynchronous successive halving in the form that stops trials.

    A trial that reaches a rung goes on if its value is among the best 1/divisor of all values that
    the rung has seen so far, or the best one of fewer. (ASHA of Li et al. 2020 would pause it and
    promote it later; here it is decided once.)
    """

    def __init__(
        self, bracket: Bracket, numbers: Iterator[int], *, smaller_is_better: bool
    ) -> None:
        super().__init__(bracket.max_trials, bracket.concurrent, numbers, again=True)
        self._bracket = bracket
        self._sign = 1.0 if smaller_is_better else -1.0
        self._rungs: list[list[tuple[float, int]]] = [[] for _ in bracket.rungs]
        self._reached: defaultdict[int, int] = defaultdict(int)  # how many rungs, by trial

    def validated(self, trial: int, length: int, value: float) -> Decision:
        """Results of a trial that has been stopped or has ended change nothing."""
        if trial not in self._open:
            return Decision()
        # The smaller the better; what is no number is as bad as a failure.
        order = self._sign * value if math.isfinite(value) else math.inf
        ending = self._judge(trial, length, order)
        if ending is None:
            return Decision()
        self._open.discard(trial)
        return Decision(self._create(), ending)

    def ended(self, trial: int, ending: TrialEnding) -> Decision:
        """A new trial begins in the place of an invalid one, or of one that fails unstopped."""
        if ending is TrialEnding.INVALID:
            for rung in self._rungs:
                rung[:] = [entry for entry in rung if entry[1] != trial]
            return super().ended(trial, ending)
        if ending is TrialEnding.FAILED and trial in self._open:
            self._insert(self._reached[trial], trial, math.inf)
            return super().ended(trial, ending)
        self._open.discard(trial)
        return Decision()

    def rung(self, trial: int) -> str:
        return f"{self._reached[trial]} of {len(self._rungs)}"

    @property
    def to_come(self) -> int:
        return self._left if self._open else 0  # none begins once none is there to be stopped

    def likely_end(self, trial: int | None = None) -> float:
        """By the first rung that the trial is yet to reach, which it is sure to.

        At a rung one trial in `divisor` goes on, but one at least: the first to get there.
        """
        if trial is not None and trial not in self._open:
            return 0.0
        heading = [0] * len(self._rungs)
        for each in self._open:
            heading[self._reached[each]] += 1
        passed, expected, chances = max(self._reached.values(), default=0), float(self.to_come), []
        for rung, count in enumerate(heading):
            expected += count
            sure = rung >= passed and expected > 0
            chances.append(max(1 / self._bracket.divisor, min(1 / expected, 1) if sure else 0.0))
            expected *= chances[-1]
        end, first = 1.0, 0 if trial is None else self._reached[trial]
        for rung in reversed(range(first, len(self._rungs) - 1)):
            length = self._bracket.rungs[rung] / self._bracket.rungs[-1]
            end = length + chances[rung] * (end - length)
        return end

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
    """New methods, told nothing yet, which create the trials of a search together, from 0 on."""
    searcher, numbers = search.searcher, itertools.count()
    if isinstance(searcher, HalvingSearcher):
        smaller = searcher.smaller_is_better
        brackets = searcher.brackets
        return [SuccessiveHalving(b, numbers, smaller_is_better=smaller) for b in brackets]
    concurrent = getattr(searcher, "max_concurrent_trials", 1)
    again = isinstance(searcher, RandomSearcher)
    return [SearchMethod(most_trials(search), concurrent, numbers, again)]


def most_trials(search: Search) -> int:
    """How many trials there are, those that prove invalid and are replaced not counted."""
    searcher = search.searcher
    if isinstance(searcher, HalvingSearcher):
        return sum(bracket.max_trials for bracket in searcher.brackets)
    if isinstance(searcher, RandomSearcher):
        return searcher.max_trials
    return search.space.grid_size if isinstance(searcher, GridSearcher) else 1
