"""Trials one after the other, none of them stopped: single, random and grid."""

from __future__ import annotations

from collections.abc import Iterator

from natdgp.search.decisions import Decision, Ending, Outlook


class Succession:
    """A fixed number of trials, so many of them under way at once."""

    def __init__(
        self, trials: int, concurrent: int, numbers: Iterator[int], *, replaces_invalid: bool
    ) -> None:
        """:param concurrent: 0: all.
        :param numbers: gives a new trial its number.
        :param replaces_invalid: whether an invalid trial gives way to another point.
        """
        self._left = trials
        self._concurrent = min(trials, concurrent or trials)
        self._numbers = numbers
        self._replaces_invalid = replaces_invalid

    def start(self) -> Decision:
        return self._create(self._concurrent)

    def validated(self, trial: int, length: int, value: float) -> Decision:
        return Decision()

    def ended(self, trial: int, ending: Ending) -> Decision:
        if ending is Ending.INVALID and self._replaces_invalid:
            self._left += 1
        return self._create(min(self._left, 1))

    def rung(self, trial: int) -> str:
        return ""

    def outlook(self) -> Outlook:
        return Outlook({}, (1.0,) * self._left)

    def _create(self, count: int) -> Decision:
        self._left -= count
        return Decision(tuple(next(self._numbers) for _ in range(count)))
