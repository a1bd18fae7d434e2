"""Asynchronous successive halving in the form that stops trials, as Determined 0.38.1 has it.

A trial that reaches a rung goes on if its value is among the best 1/divisor of all values that the
rung has seen so far, or the best one of fewer. (ASHA of Li et al. 2020 would pause it and promote
it later; here it is decided once.)
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator

from natdgp.search.decisions import Decision, Ending, Outlook, Verdict
from natdgp.settings.brackets import Bracket


class Halving:
    """One bracket."""

    def __init__(
        self, bracket: Bracket, numbers: Iterator[int], *, smaller_is_better: bool
    ) -> None:
        """:param numbers: gives a new trial its number."""
        self._bracket = bracket
        self._numbers = numbers
        self._sign = 1.0 if smaller_is_better else -1.0
        self._rungs: list[list[tuple[float, int]]] = [[] for _ in bracket.rungs]
        self._rung_of: dict[int, int] = {}
        self._reached: dict[int, int] = {}
        self._ended: set[int] = set()
        self._invalid = 0

    def start(self) -> Decision:
        return Decision(tuple(self._create() for _ in range(self._bracket.concurrent)))

    def validated(self, trial: int, length: int, value: float) -> Decision:
        """Results of a trial that has been stopped or has ended change nothing."""
        if trial in self._ended:
            return Decision()
        verdict = self._judge(trial, length, self._order(value))
        if verdict is Verdict.GO_ON:
            return Decision()
        self._ended.add(trial)
        return Decision(self._one_more(), verdict)

    def ended(self, trial: int, ending: Ending) -> Decision:
        stopped_before = trial in self._ended
        self._ended.add(trial)
        if ending is Ending.INVALID:
            self._invalid += 1
            for rung in self._rungs:
                rung[:] = [entry for entry in rung if entry[1] != trial]
            return Decision((self._create(),))
        if ending is Ending.FAILED and not stopped_before:
            self._insert(self._rung_of[trial], trial, math.inf)
            return Decision(self._one_more())
        return Decision()

    def rung(self, trial: int) -> str:
        return f"{self._reached.get(trial, 0)} of {len(self._rungs)}"

    def outlook(self) -> Outlook:
        """By the first rung that each trial is yet to reach, which it is sure to."""
        ends = self._likely_ends()
        # A trial begins where another is stopped or fails: once all have ended, none will.
        to_come = self._to_come if self._rung_of.keys() - self._ended else 0
        return Outlook(
            {n: 0.0 if n in self._ended else ends[rung] for n, rung in self._rung_of.items()},
            (ends[0],) * to_come,
        )

    def _likely_ends(self) -> list[float]:
        """Of trials that are yet to reach each rung.

        At a rung one trial in `divisor` goes on, but one at least: the first to get there.
        """
        heading = [0] * len(self._rungs)
        for trial, rung in self._rung_of.items():
            heading[rung] += trial not in self._ended
        passed, expected, chances = max(self._rung_of.values(), default=0), float(self._to_come), []
        for rung, count in enumerate(heading):
            expected += count
            sure = rung >= passed and expected > 0
            chances.append(max(1 / self._bracket.divisor, min(1 / expected, 1) if sure else 0.0))
            expected *= chances[-1]
        ends = [1.0]
        lengths = [length / self._bracket.rungs[-1] for length in self._bracket.rungs]
        for length, chance in zip(lengths[-2::-1], chances[-2::-1], strict=True):
            ends.insert(0, length + chance * (ends[0] - length))
        return ends

    def _order(self, value: float) -> float:
        """The smaller the better; what is no number is as bad as a failure."""
        return self._sign * value if math.isfinite(value) else math.inf

    def _judge(self, trial: int, length: int, value: float) -> Verdict:
        """Pass all rungs that the trial has reached: validations may skip some."""
        top = len(self._rungs) - 1
        for rung in range(self._rung_of[trial], top + 1):
            self._rung_of[trial] = rung
            if length < self._bracket.rungs[rung]:
                return Verdict.GO_ON
            place = self._insert(rung, trial, value)
            self._reached[trial] = rung + 1
            if rung == top:
                return Verdict.TOP
            if place >= max(int(len(self._rungs[rung]) / self._bracket.divisor), 1):
                return Verdict.STOP
        return Verdict.GO_ON

    def _insert(self, rung: int, trial: int, value: float) -> int:
        """Note a value at a rung, before equal ones; returns its place, the best being 0."""
        entries = self._rungs[rung]
        place = bisect.bisect_left(entries, value, key=lambda entry: entry[0])
        entries.insert(place, (value, trial))
        return place

    def _one_more(self) -> tuple[int, ...]:
        """A new trial, unless there are as many as there may be; invalid ones do not count."""
        return (self._create(),) if self._to_come else ()

    @property
    def _to_come(self) -> int:
        return max(self._bracket.max_trials - len(self._rung_of) + self._invalid, 0)

    def _create(self) -> int:
        number = next(self._numbers)
        self._rung_of[number] = 0
        return number
