from __future__ import annotations

from natdgp.search.cost import cost_of, steps_left
from natdgp.search.decisions import Ending
from natdgp.search.events import Ended, Validated
from natdgp.search.progress import Progress
from tests.unit.search.conftest import RANDOM, Write

# One bracket of 9 trials and rungs at 2, 6 and 18: 9 go to 2, 3 on to 6, 1 on to 18.
HALVING = {
    "name": "async_halving",
    "metric": "val_nlpd",
    "max_length": {"batches": 18},
    "max_time": 18,
    "time_metric": "batches",
    "num_rungs": 3,
    "divisor": 3,
    "max_trials": 9,
}


def test_a_random_search_costs_every_trial_to_the_end(search_of: Write) -> None:
    cost = cost_of(search_of(searcher=RANDOM))
    assert (cost.trials, cost.most_steps, cost.likely_steps) == (4, 24, 24)


def test_epochs_cost_what_the_batch_size_of_each_trial_makes_of_them(search_of: Write) -> None:
    searcher = {**RANDOM, "max_length": {"epochs": 2}}
    seed = {"experiment_seed": 6}
    search = search_of(searcher=searcher, records_per_epoch=320, reproducibility=seed)
    rows = [trial.point["global_batch_size"] for trial in Progress(search).trials]
    assert set(rows) == {32, 64}
    assert cost_of(search).most_steps == sum(640 // each for each in rows)


def test_halving_costs_less_if_trials_are_stopped_as_intended(search_of: Write) -> None:
    cost = cost_of(search_of(searcher=HALVING))
    assert (cost.trials, cost.most_steps) == (9, 162)
    assert cost.likely_steps == 9 * 2 + 3 * 4 + 1 * 12


def test_the_best_of_a_few_trials_is_expected_to_go_on_to_the_end(search_of: Write) -> None:
    cost = cost_of(search_of(searcher={**HALVING, "max_trials": 2}))
    assert cost.likely_steps == 2 * 2 + 1 * 4 + 1 * 12


def test_trials_that_go_on_against_expectation_are_still_to_be_trained(search_of: Write) -> None:
    progress = Progress(search_of(searcher=HALVING))
    for number in range(9):
        progress.take(Validated(number, 2, 2, 9.0 - number))
    assert steps_left(progress) == 9 * 4 + 3 * 12
    for number in range(9):
        progress.take(Validated(number, 6, 6, 9.0 - number))
    assert sum(trial.steps for trial in progress.trials) == 54
    assert steps_left(progress) == 162 - 54
    for number in range(8):
        progress.take(Validated(number, 18, 18, 1.0))
        progress.take(Ended(number, Ending.COMPLETED))
    assert steps_left(progress) == 12
    progress.take(Validated(8, 18, 18, 1.0))
    assert steps_left(progress) == 0


def test_trials_that_are_stopped_or_fail_leave_those_to_come(search_of: Write) -> None:
    searcher = {**HALVING, "max_concurrent_trials": 3}
    progress = Progress(search_of(searcher=searcher))
    assert steps_left(progress) == 9 * 2 + 3 * 4 + 1 * 12
    progress.take(Validated(0, 2, 2, 1.0))  # on to 6, and of 8 others 8/3
    assert steps_left(progress) == round(8 * 2 + (1 + 8 / 3) * 4 + (1 + 8 / 3) / 3 * 12)
    progress.take(Validated(1, 2, 2, 2.0))  # stopped
    assert steps_left(progress) == round(7 * 2 + (1 + 7 / 3) * 4 + (1 + 7 / 3) / 3 * 12)
    progress.take(Ended(2, Ending.FAILED))
    assert steps_left(progress) == 6 * 2 + 3 * 4 + 1 * 12


def test_what_is_left_shrinks_with_every_result(search_of: Write) -> None:
    search = search_of(searcher={**RANDOM, "max_concurrent_trials": 2})
    progress = Progress(search)
    assert steps_left(progress) == 24
    progress.take(Validated(0, 4, 4, 1.0))
    assert steps_left(progress) == 20
    progress.take(Ended(0, Ending.FAILED))
    assert steps_left(progress) == 18
    for number in (1, 2, 3):
        progress.take(Ended(number, Ending.COMPLETED))
    assert steps_left(progress) == 0
