"""The searchers of Determined 0.38.1: which trials run, how long, and by what they are judged.

Required fields, allowed fields and defaults are the master's; `max_length` is required by
TFKerasTrial, whatever the searcher.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from natdgp.fields import NonNegativeInt, Number, PositiveInt, Section
from natdgp.settings.spans import Length
from natdgp.training.training_settings import SelectionMetric

Rungs = Annotated[PositiveInt, Field(le=100)]


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


class AsyncHalvingSearcher(_Halving):
    """One bracket of asynchronous successive halving."""

    name: Literal["async_halving"]
    num_rungs: Rungs
    """Lengths at which trials are compared, the last being max_time."""


class AdaptiveSearcher(_Halving):
    """Several brackets of asynchronous successive halving beside each other."""

    name: Literal["adaptive_asha"]
    mode: Literal["aggressive", "standard", "conservative"] = "standard"
    """How many brackets: the one with most rungs, the upper half of them, or all."""
    max_rungs: Rungs = 5
    """Rungs of the bracket with most of them."""
    bracket_rungs: tuple[Rungs, ...] = ()
    """Rungs of each bracket, in place of mode and max_rungs."""


Searcher = Annotated[
    SingleSearcher | RandomSearcher | GridSearcher | AsyncHalvingSearcher | AdaptiveSearcher,
    Field(discriminator="name"),
]
HalvingSearcher = AsyncHalvingSearcher | AdaptiveSearcher
