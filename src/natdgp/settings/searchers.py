"""The searchers of Determined 0.38.1: which trials run, how long, and by what they are judged.

Required fields, allowed fields and defaults are the master's; `max_length` is required by
TFKerasTrial, whatever the searcher.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from natdgp.settings.metrics import LARGER_IS_BETTER, ValidationMetric
from natdgp.settings.schema import NonNegativeInt, Number, PositiveInt
from natdgp.settings.section import Section
from natdgp.settings.spans import Length


class _Judged(Section):
    """What all searchers have in common."""

    name: str
    metric: ValidationMetric
    max_length: Length
    smaller_is_better: bool = True
    source_trial_id: NonNegativeInt | None = None
    """On a cluster, the trial from whose latest checkpoint every trial starts."""
    source_checkpoint_uuid: str | None = None
    """On a cluster, the checkpoint that every trial starts from."""

    @model_validator(mode="after")
    def _judges_the_right_way(self) -> _Judged:
        if self.smaller_is_better == (self.metric in LARGER_IS_BETTER):
            right = str(not self.smaller_is_better).lower()
            raise ValueError(
                f"{self.metric} with smaller_is_better {str(self.smaller_is_better).lower()} keeps "
                f"the worst checkpoint as the best; set smaller_is_better: {right}"
            )
        return self


class SingleSearcher(_Judged):
    """One trial."""

    name: Literal["single"]


class RandomSearcher(_Judged):
    """Trials at random points of the space."""

    name: Literal["random"]
    max_trials: PositiveInt
    max_concurrent_trials: NonNegativeInt = 16
    """Trials under way at once; 0: all."""


class GridSearcher(_Judged):
    """A trial at every point of a grid."""

    name: Literal["grid"]
    max_concurrent_trials: NonNegativeInt = 16
    """Trials under way at once; 0: all."""


class _Halving(_Judged):
    """Asynchronous successive halving (Li et al. 2020), in the form that stops trials."""

    max_trials: PositiveInt
    max_time: PositiveInt
    """Length of a trial that is never stopped, in units of time_metric; max_length says it too."""
    time_metric: Literal["batches", "epochs"]
    """What is reported beside every validation, by which trials are compared."""
    divisor: Annotated[Number, Field(gt=1)] = 4.0
    """Of so many trials that reach a rung, one goes on."""
    max_concurrent_trials: NonNegativeInt = 16
    stop_once: bool | None = None
    """Of earlier versions; without effect."""

    @model_validator(mode="after")
    def _has_one_length(self) -> _Halving:
        said_twice = {self.time_metric: self.max_time}
        if self.max_length.model_dump(exclude_none=True) != said_twice:
            raise ValueError(
                f"trials stop at max_length, and rungs go up to max_time, {self.max_time} "
                f"{self.time_metric}: they must be the same; "
                f"set max_length: {{{self.time_metric}: {self.max_time}}}"
            )
        return self


class AsyncHalvingSearcher(_Halving):
    """One bracket of asynchronous successive halving."""

    name: Literal["async_halving"]
    num_rungs: PositiveInt
    """Lengths at which trials are compared, the last being max_time."""


class AdaptiveSearcher(_Halving):
    """Several brackets of asynchronous successive halving beside each other."""

    name: Literal["adaptive_asha"]
    mode: Literal["aggressive", "standard", "conservative"] = "standard"
    """How many brackets: the one with most rungs, the upper half of them, or all."""
    max_rungs: PositiveInt = 5
    """Rungs of the bracket with most of them."""
    bracket_rungs: tuple[PositiveInt, ...] = ()
    """Rungs of each bracket, in place of mode and max_rungs."""


Searcher = Annotated[
    SingleSearcher | RandomSearcher | GridSearcher | AsyncHalvingSearcher | AdaptiveSearcher,
    Field(discriminator="name"),
]
HalvingSearcher = AsyncHalvingSearcher | AdaptiveSearcher
