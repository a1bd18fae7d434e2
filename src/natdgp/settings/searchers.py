"""The searchers of Determined 0.38.1: which trials run, how long, and by what they are judged.

Required fields, allowed fields, defaults and the arithmetic of asynchronous halving are the
master's; `max_length` is required by TFKerasTrial, whatever the searcher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from natdgp.fields import NonNegativeInt, Number, PositiveInt, Section
from natdgp.settings.spans import Length
from natdgp.training.training_settings import SelectionMetric

Rungs = Annotated[PositiveInt, Field(le=100)]


@dataclass(frozen=True)
class Bracket:
    """One successive halving: trials are compared at rungs, lengths of training."""

    rungs: tuple[int, ...]
    """The lengths, in units of time_metric, each `divisor` times the one before."""
    divisor: float
    """Of so many trials that reach a rung, one goes on."""
    max_trials: int
    concurrent: int
    """Trials under way at once; a new one is created when one is stopped."""


class _Common(Section):
    """What all searchers have in common."""

    name: str
    metric: SelectionMetric
    max_length: Length
    smaller_is_better: bool = True
    source_trial_id: NonNegativeInt | None = None
    """On a cluster, the trial from whose latest checkpoint every trial starts."""
    source_checkpoint_uuid: str | None = None
    """On a cluster, the checkpoint that every trial starts from."""


class SingleSearcher(_Common):
    """One trial."""

    name: Literal["single"]


class RandomSearcher(_Common):
    """Trials at random points of the space."""

    name: Literal["random"]
    max_trials: PositiveInt
    max_concurrent_trials: NonNegativeInt = 16
    """Trials under way at once; 0: all."""


class GridSearcher(_Common):
    """A trial at every point of a grid."""

    name: Literal["grid"]
    max_concurrent_trials: NonNegativeInt = 16
    """Trials under way at once; 0: all."""


class _Halving(_Common):
    """Asynchronous successive halving (Li et al. 2020), in the form that stops trials."""

    max_trials: PositiveInt
    max_time: PositiveInt
    """Length of a trial that is never stopped, in units of time_metric; max_length says it too."""
    time_metric: Literal["batches", "epochs"]
    """What is reported beside every validation, by which trials are compared."""
    divisor: Annotated[Number, Field(gt=1, le=1000)] = 4.0
    """Of so many trials that reach a rung, one goes on."""
    max_concurrent_trials: NonNegativeInt = 16
    stop_once: bool | None = None
    """Of earlier versions; without effect."""

    def bracket(self, rungs: int, max_trials: int, concurrent: int) -> Bracket:
        """So many rungs, of which the last is the whole length and none is below 1."""
        time, divisor = self.max_time, self.divisor
        lengths = [max(int(time / divisor ** (rungs - 1 - i)), 1) for i in range(rungs)]
        return Bracket(tuple(lengths), divisor, max_trials, min(concurrent, max_trials))


class AsyncHalvingSearcher(_Halving):
    """One bracket of asynchronous successive halving."""

    name: Literal["async_halving"]
    num_rungs: Rungs
    """Lengths at which trials are compared, the last being max_time."""

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        """The one bracket."""
        concurrent = self.max_concurrent_trials or int(self.divisor ** (self.num_rungs - 1))
        return (self.bracket(self.num_rungs, self.max_trials, concurrent),)


class AdaptiveSearcher(_Halving):
    """Several brackets of asynchronous successive halving beside each other."""

    name: Literal["adaptive_asha"]
    mode: Literal["aggressive", "standard", "conservative"] = "standard"
    """How many brackets: the one with most rungs, the upper half of them, or all."""
    max_rungs: Rungs = 5
    """Rungs of the bracket with most of them."""
    bracket_rungs: tuple[Rungs, ...] = ()
    """Rungs of each bracket, in place of mode and max_rungs."""

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        """The brackets, those with most rungs first."""
        rungs = sorted(self.bracket_rungs or self._rungs_of_mode(), reverse=True)
        trials = self._shares_of_trials(rungs)
        concurrent = self._shares_of_concurrency(trials)
        return tuple(map(self.bracket, rungs, trials, concurrent))

    def _rungs_of_mode(self) -> list[int]:
        longest = [int(math.log(n, self.divisor)) + 1 for n in (self.max_time, self.max_trials)]
        most = min(self.max_rungs, *longest)
        fewest = {"conservative": 1, "standard": (most - 1) // 2 + 1, "aggressive": most}
        return list(range(fewest[self.mode], most + 1))

    def _shares_of_trials(self, rungs: list[int]) -> list[int]:
        """Roughly the same number of steps for each bracket; what is left goes to the first."""
        weights = [self.divisor ** (count - 1) / count for count in rungs]
        shares = [max(int(weight / sum(weights) * self.max_trials), 1) for weight in weights]
        shares[0] += max(self.max_trials - sum(shares), 0)
        return shares

    def _shares_of_concurrency(self, trials: list[int]) -> list[int]:
        if self.max_concurrent_trials == 0:
            return [max(trials[-1], int(self.divisor))] * len(trials)
        share, left = divmod(max(self.max_concurrent_trials, len(trials)), len(trials))
        return [share + (index < left) for index in range(len(trials))]


Searcher = Annotated[
    SingleSearcher | RandomSearcher | GridSearcher | AsyncHalvingSearcher | AdaptiveSearcher,
    Field(discriminator="name"),
]
HalvingSearcher = AsyncHalvingSearcher | AdaptiveSearcher
