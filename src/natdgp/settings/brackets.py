"""The arithmetic of asynchronous successive halving, as in Determined 0.38.1's master.

A bracket compares trials at rungs: lengths of training, each `divisor` times the one before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from natdgp.settings.searchers import AdaptiveSearcher, HalvingSearcher


@dataclass(frozen=True)
class Bracket:
    """One successive halving."""

    rungs: tuple[int, ...]
    """Lengths at which trials are compared, in units of time_metric, ascending."""
    divisor: float
    """Of so many trials that reach a rung, one goes on."""
    max_trials: int
    concurrent: int
    """Trials under way at once; a new one is created when one is stopped."""


def brackets_of(searcher: HalvingSearcher) -> tuple[Bracket, ...]:
    """The brackets of a searcher, those with most rungs first."""
    if isinstance(searcher, AdaptiveSearcher):
        return _tournament(searcher)
    rungs, divisor = searcher.num_rungs, searcher.divisor
    asked = searcher.max_concurrent_trials or int(divisor ** (rungs - 1))
    return (_bracket(searcher, rungs, searcher.max_trials, asked),)


def rung_lengths(count: int, divisor: float, length: int) -> tuple[int, ...]:
    """The lengths of a bracket's rungs, the last being the whole length."""
    return tuple(max(int(length / divisor ** (count - 1 - i)), 1) for i in range(count))


def _bracket(searcher: HalvingSearcher, rungs: int, max_trials: int, concurrent: int) -> Bracket:
    return Bracket(
        rungs=rung_lengths(rungs, searcher.divisor, searcher.max_time),
        divisor=searcher.divisor,
        max_trials=max_trials,
        concurrent=min(concurrent, max_trials),
    )


def _tournament(searcher: AdaptiveSearcher) -> tuple[Bracket, ...]:
    rungs = sorted(searcher.bracket_rungs or _rungs_of_mode(searcher), reverse=True)
    trials = _shares_of_trials(searcher.max_trials, searcher.divisor, rungs)
    concurrent = _shares_of_concurrency(searcher.max_concurrent_trials, searcher.divisor, trials)
    return tuple(map(_bracket, [searcher] * len(rungs), rungs, trials, concurrent))


def _rungs_of_mode(searcher: AdaptiveSearcher) -> list[int]:
    def rungs_for(number: int) -> int:
        return int(math.log(number) / math.log(searcher.divisor)) + 1

    most = min(searcher.max_rungs, rungs_for(searcher.max_time), rungs_for(searcher.max_trials))
    fewest = {"conservative": 1, "standard": (most - 1) // 2 + 1, "aggressive": most}
    return list(range(fewest[searcher.mode], most + 1))


def _shares_of_trials(max_trials: int, divisor: float, rungs: list[int]) -> list[int]:
    """Roughly the same number of steps for each bracket; what is left goes to the first."""
    weights = [divisor ** (count - 1) / count for count in rungs]
    shares = [max(int(weight / sum(weights) * max_trials), 1) for weight in weights]
    shares[0] += max(max_trials - sum(shares), 0)
    return shares


def _shares_of_concurrency(concurrent: int, divisor: float, trials: list[int]) -> list[int]:
    if concurrent == 0:
        return [max(trials[-1], int(divisor))] * len(trials)
    share, left = divmod(max(concurrent, len(trials)), len(trials))
    return [share + (index < left) for index in range(len(trials))]
