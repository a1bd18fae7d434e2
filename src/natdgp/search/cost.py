"""What a search costs in training steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from natdgp.search.draws import point_of
from natdgp.search.progress import Progress
from natdgp.search.searchers import most_trials
from natdgp.settings import Search
from natdgp.settings.brackets import Bracket, brackets_of
from natdgp.settings.searchers import HalvingSearcher
from natdgp.settings.space import Point
from natdgp.settings.spans import in_batches


@dataclass(frozen=True)
class Cost:
    """Trials and training steps of a search, those of invalid trials that are replaced left out."""

    trials: int
    most_steps: int
    """If every trial goes on to its full length."""
    likely_steps: int
    """If at every rung one trial in `divisor` goes on; without rungs, all."""


def cost_of(search: Search) -> Cost:
    """The cost of a search from its beginning."""
    trials = most_trials(search)
    steps = sum(full_length(search, point_of(search, number)) for number in range(trials))
    return Cost(trials, steps, math.ceil(steps * _share_trained(search)))


def full_length(search: Search, point: Point) -> int:
    """Training steps of a trial that is not stopped."""
    return in_batches(
        search.searcher.max_length.model_dump(exclude_none=True),
        point["global_batch_size"],
        search.config.get("records_per_epoch"),
    )


def steps_left(progress: Progress, cost: Cost) -> int:
    """Steps that are likely to come: those of open trials, and of trials yet to be created."""
    search = progress.search
    if not isinstance(search.searcher, HalvingSearcher):
        to_come = range(len(progress.trials), cost.trials)
        lengths = [full_length(search, trial.point) - trial.steps for trial in progress.open]
        return sum(lengths) + sum(full_length(search, point_of(search, n)) for n in to_come)
    taken = sum(trial.steps for trial in progress.trials)
    return max(cost.likely_steps - taken, 0) if progress.open else 0


def _share_trained(search: Search) -> float:
    if not isinstance(search.searcher, HalvingSearcher):
        return 1.0
    brackets = brackets_of(search.searcher)
    everything = sum(bracket.max_trials for bracket in brackets) * search.searcher.max_time
    return sum(map(_likely_length, brackets)) / everything


def _likely_length(bracket: Bracket) -> float:
    """Of all trials of a bracket together, in units of time_metric."""
    reached = [bracket.max_trials / bracket.divisor**rung for rung in range(len(bracket.rungs))]
    spans = [
        length - before for before, length in zip((0, *bracket.rungs), bracket.rungs, strict=False)
    ]
    return sum(max(trials, 1) * span for trials, span in zip(reached, spans, strict=True))
