"""Who of several ranks keeps the others waiting, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from natdgp.parallel.pulse import Phase, Reading

LIMIT = 60.0
"""Seconds for which a rank may be silent, or all may make no progress, unless others are given."""

START = 10
"""Times the limit for which ranks may prepare: data, first values, tracing of the first step."""


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


class Vigil:
    """Compares what ranks show with what they showed before."""

    def __init__(self, limit: float, first: int = 0) -> None:
        """:param limit: seconds for which a rank may be silent, or all may make no progress.
        :param first: the rank of the first reading.
        """
        self._limit = limit
        self._first = first
        self._beats: dict[int, tuple[int, float]] = {}
        self._progress: tuple[list[int], float] = ([], 0.0)

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
        alive = [reading for reading in readings if reading is not None]
        events = [reading.events for reading in alive]
        at_work = [
            rank
            for rank, reading in enumerate(alive)
            if reading.phase in (Phase.STARTING, Phase.TRAINING)
        ]
        seen, since = self._progress
        # Who is between workloads waits for those at work, never the other way round.
        idle = not at_work or any(reading.phase is Phase.ENDING for reading in alive)
        if events != seen or idle:
            self._progress = (events, now)
            return None
        preparing = any(reading.events <= 2 for reading in alive)  # the first step is traced
        limit = self._limit * (START if preparing else 1)
        if len(alive) < len(readings) or now - since <= limit:
            return None
        fewest = min(events[rank] for rank in at_work)
        behind = [rank for rank in at_work if events[rank] == fewest]
        names = tuple(self._first + rank for rank in behind)
        return Stall(names, steps_of(alive[behind[0]]), False, limit)


def steps_of(reading: Reading | None) -> int | None:
    """Training steps that a rank had completed, or None if it had begun none."""
    return None if reading is None or reading.phase is Phase.STARTING else reading.steps
