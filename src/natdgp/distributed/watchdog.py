"""Who of several ranks keeps the others waiting, and since when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from natdgp.distributed.heartbeat import Phase, Reading

LIMIT = 60.0
"""Seconds for which a rank may be silent, or all may make no progress, unless others are given."""

START = 10
"""Times the limit for which ranks may prepare (data, first values), do work of a new kind (graphs
are traced), save, or wait for what is no rank."""

AT_WORK = (Phase.TRAINING, Phase.VALIDATING, Phase.SAVING)

VARIABLE = "NATDGP_RANK_TIMEOUT"
"""In the environment: the limit, where it is not given otherwise."""


def limit_from(text: str | None) -> float:
    """The seconds that the variable asks for; LIMIT where it is not set.

    :raises ValueError: if it is no number above 0.
    """
    try:
        limit = LIMIT if text is None else float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise ValueError(
            f"{VARIABLE} is {text!r}; give seconds above 0 for which a rank may be silent, or "
            f"remove it from the environment for the default of {LIMIT:g}"
        )
    return limit


@dataclass(frozen=True)
class Stall:
    """Ranks that take longer than the limit."""

    ranks: tuple[int, ...]
    steps: int | None
    """Training steps that the first of them had completed; None if it had begun none."""
    silent: bool
    """Whether the process itself gives no sign, as one that is stopped; else it lives and hangs."""
    seconds: float
    """The limit."""

    def __str__(self) -> str:
        one = len(self.ranks) == 1
        names = f"rank{'' if one else 's'} {', '.join(map(str, self.ranks))}"
        what = "gave no sign of life" if self.silent else "made no progress"
        return f"{names} {what} for {self.seconds:g} s {after(self.steps)}"


def after(steps: int | None) -> str:
    """Where a rank was seen last, in words."""
    return "before its first step" if steps is None else f"after step {steps}"


class Watchdog:
    """Compares what ranks show with what they showed before."""

    def __init__(self, limit: float, first: int = 0) -> None:
        """:param limit: seconds for which a rank may be silent, or all may make no progress.
        :param first: the rank of the first reading.
        """
        self._limit = limit
        self._first = first
        self._beats: dict[int, tuple[int, float]] = {}
        self._progress: tuple[list[tuple[int, Phase] | None], float] = ([], 0.0)

    def look(self, readings: Sequence[Reading | None], now: float) -> Stall | None:
        """The ranks that are overdue, if any are.

        :param readings: of all ranks on this machine, by rank.
        :param now: seconds of a clock that only goes on.
        """
        return self._silent(readings, now) or self._stuck(readings, now)

    def _silent(self, readings: Sequence[Reading | None], now: float) -> Stall | None:
        for rank, reading in enumerate(readings):
            if reading is None or reading.phase is Phase.ENDING:
                continue
            beats, since = self._beats.get(rank, (-1, now))
            if reading.beats != beats:
                self._beats[rank] = (reading.beats, now)
            elif now - since > self._limit:
                return Stall((self._first + rank,), steps_of(reading), True, self._limit)
        return None

    def _stuck(self, readings: Sequence[Reading | None], now: float) -> Stall | None:
        shown = [(reading.events, reading.phase) if reading else None for reading in readings]
        seen, since = self._progress
        if shown != seen or all(one and one[1] is Phase.ENDING for one in shown):
            self._progress = (shown, now)
            return None
        limit = self._limit * (START if _may_take_longer(readings) else 1)
        if now - since <= limit:
            return None
        behind = _furthest_behind(readings)
        names = tuple(self._first + rank for rank in behind)
        return Stall(names, steps_of(readings[behind[0]]), readings[behind[0]] is None, limit)


def _may_take_longer(readings: Sequence[Reading | None]) -> bool:
    """Whether nobody can say how long what a rank does takes: it prepares, does something for the
    first time (graphs are traced), saves, hears from the master, or reports at the end."""
    return not any(reading and reading.phase in AT_WORK for reading in readings) or any(
        reading is None
        or reading.phase in (Phase.STARTING, Phase.SAVING, Phase.ENDING)
        or (reading.phase in AT_WORK and reading.first)
        for reading in readings
    )


def _furthest_behind(readings: Sequence[Reading | None]) -> list[int]:
    """Those that are not there; else those at work with fewest events, for whom the others wait;
    else those that have not ended."""
    missing = [rank for rank, reading in enumerate(readings) if reading is None]
    there = {rank: reading for rank, reading in enumerate(readings) if reading is not None}
    at_work = [r for r, one in there.items() if one.phase in (Phase.STARTING, *AT_WORK)]
    left = at_work or [r for r, one in there.items() if one.phase is not Phase.ENDING]
    fewest = min((there[rank].events for rank in left), default=0)
    return missing or [rank for rank in left if there[rank].events == fewest]


def steps_of(reading: Reading | None) -> int | None:
    """Training steps that a rank had completed, or None if it had begun none."""
    return None if reading is None or reading.phase is Phase.STARTING else reading.steps
