"""What a search costs in training steps."""

from __future__ import annotations

from dataclasses import dataclass

from natdgp.search.draws import point_of
from natdgp.search.progress import Progress
from natdgp.search.searcher_state import most_trials
from natdgp.settings import Search
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
    steps = sum(full_length(search, number) for number in range(trials))
    return Cost(trials, steps, steps_left(Progress(search)))


def full_length(search: Search, number: int) -> int:
    """Training steps of a trial that is not stopped."""
    length = search.searcher.max_length.model_dump(exclude_none=True)
    if (batches := length.get("batches")) is not None:
        return int(batches)  # whatever the trial's point, which need not be drawn
    rows = point_of(search, number)["global_batch_size"]
    return in_batches(length, rows, search.config.get("records_per_epoch"))


def steps_left(progress: Progress) -> int:
    """Steps that are likely to come: those of open trials, and of trials yet to be created."""
    search, outlook = progress.search, progress.outlook
    steps = 0.0
    for trial in progress.open:
        end = outlook.ends.get(trial.number, 1.0) * full_length(search, trial.number)
        steps += max(end - trial.steps, 0)
    for number, share in enumerate(outlook.to_come, start=len(progress.trials)):
        steps += share * full_length(search, number)
    return round(steps)
