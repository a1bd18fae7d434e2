from __future__ import annotations

from natdgp.search.search_methods import TrialEnding, most_trials
from natdgp.search.search_state import (
    SearchState,
    TrialEnded,
    TrialValidated,
)
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
    search = search_of(searcher=RANDOM)
    assert (
        most_trials(search),
        SearchState(search).most_steps,
        SearchState(search).steps_left,
    ) == (4, 24, 24)


def test_epochs_cost_what_the_batch_size_of_each_trial_makes_of_them(search_of: Write) -> None:
    searcher = {**RANDOM, "max_length": {"epochs": 2}}
    seed = {"experiment_seed": 6}
    search = search_of(searcher=searcher, records_per_epoch=320, reproducibility=seed)
    rows = [trial.point["global_batch_size"] for trial in SearchState(search).trials]
    assert set(rows) == {32, 64}
    assert SearchState(search).most_steps == sum(640 // each for each in rows)


def test_halving_costs_less_if_trials_are_stopped_as_intended(search_of: Write) -> None:
    search = search_of(searcher=HALVING)
    assert (most_trials(search), SearchState(search).most_steps) == (9, 162)
    assert SearchState(search).steps_left == 9 * 2 + 3 * 4 + 1 * 12


def test_the_best_of_a_few_trials_is_expected_to_go_on_to_the_end(search_of: Write) -> None:
    state = SearchState(search_of(searcher={**HALVING, "max_trials": 2}))
    assert state.steps_left == 2 * 2 + 1 * 4 + 1 * 12


def test_trials_that_go_on_against_expectation_are_still_to_be_trained(search_of: Write) -> None:
    state = SearchState(search_of(searcher=HALVING))
    for number in range(9):
        state.take(TrialValidated(number, 2, 2, 9.0 - number))
    assert state.steps_left == 9 * 4 + 3 * 12
    for number in range(9):
        state.take(TrialValidated(number, 6, 6, 9.0 - number))
    assert state.steps == 54
    assert state.steps_left == 162 - 54
    for number in range(8):
        state.take(TrialValidated(number, 18, 18, 1.0))
        state.take(TrialEnded(number, TrialEnding.COMPLETED))
    assert state.steps_left == 12
    state.take(TrialValidated(8, 18, 18, 1.0))
    assert state.steps_left == 0


def test_trials_that_are_stopped_or_fail_leave_those_to_come(search_of: Write) -> None:
    searcher = {**HALVING, "max_concurrent_trials": 3}
    state = SearchState(search_of(searcher=searcher))
    assert state.steps_left == 9 * 2 + 3 * 4 + 1 * 12
    state.take(TrialValidated(0, 2, 2, 1.0))  # on to 6, and of 8 others 8/3
    assert state.steps_left == round(8 * 2 + (1 + 8 / 3) * 4 + (1 + 8 / 3) / 3 * 12)
    state.take(TrialValidated(1, 2, 2, 2.0))  # stopped
    assert state.steps_left == round(7 * 2 + (1 + 7 / 3) * 4 + (1 + 7 / 3) / 3 * 12)
    state.take(TrialEnded(2, TrialEnding.FAILED))
    assert state.steps_left == 6 * 2 + 3 * 4 + 1 * 12


def test_what_is_left_shrinks_with_every_result(search_of: Write) -> None:
    search = search_of(searcher={**RANDOM, "max_concurrent_trials": 2})
    state = SearchState(search)
    assert state.steps_left == 24
    state.take(TrialValidated(0, 4, 4, 1.0))
    assert state.steps_left == 20
    state.take(TrialEnded(0, TrialEnding.FAILED))
    assert state.steps_left == 18
    for number in (1, 2, 3):
        state.take(TrialEnded(number, TrialEnding.COMPLETED))
    assert state.steps_left == 0


def test_each_bracket_hears_of_its_own_trials_alone(search_of: Write) -> None:
    """One of 4 trials with rungs at 1 and 3, two at first; one of 2 with a rung at 3, one first."""
    searcher = {
        "name": "adaptive_asha",
        "metric": "val_nlpd",
        "max_length": {"batches": 3},
        "max_time": 3,
        "time_metric": "batches",
        "divisor": 3,
        "bracket_rungs": [2, 1],
        "max_trials": 6,
        "max_concurrent_trials": 3,
    }
    state = SearchState(search_of(searcher=searcher, min_validation_period={"batches": 1}))
    assert len(state.trials) == 3
    for trial, length, value, to_end, trials in (
        (0, 1, 1.0, None, 3),
        (1, 1, 2.0, TrialEnding.STOPPED, 4),
        (2, 1, 9.0, None, 4),  # its first rung is 3
        (2, 3, 9.0, TrialEnding.COMPLETED, 5),
    ):
        state.take(TrialValidated(trial, length, length, value))
        assert (state.trials[trial].to_end, len(state.trials)) == (to_end, trials)
    rungs = [state.trials[number].rung for number in (0, 2, 3, 4)]
    assert rungs == ["1 of 2", "1 of 1", "0 of 2", "0 of 1"]


def test_a_decision_that_ends_a_trial_stands_whatever_comes_late(search_of: Write) -> None:
    state = SearchState(search_of())
    for event in (TrialValidated(0, 2, 2, 1.0), TrialValidated(1, 2, 2, 9.0)):
        state.take(event)
    assert [state.trials[n].to_end for n in (0, 1)] == [None, TrialEnding.STOPPED]
    state.take(TrialValidated(1, 4, 4, 0.5))
    assert state.trials[1].to_end is TrialEnding.STOPPED


def test_invalid_trials_in_a_row_are_counted_in_the_order_in_which_they_ended(
    search_of: Write,
) -> None:
    state = SearchState(search_of(searcher={**RANDOM, "max_concurrent_trials": 3}))
    endings = {
        2: TrialEnding.INVALID,
        0: TrialEnding.INVALID,
        1: TrialEnding.COMPLETED,
        3: TrialEnding.INVALID,
    }
    counts = [state.invalid_in_a_row]
    for number, ending in endings.items():
        state.take(TrialEnded(number, ending))
        counts.append(state.invalid_in_a_row)
    assert counts == [0, 1, 2, 0, 1]
    state.take(TrialValidated(4, 2, 2, 1.0))
    assert state.invalid_in_a_row == 1


def test_equal_seeds_search_the_same_points_and_others_do_not(search_of: Write) -> None:
    one, same = SearchState(search_of()), SearchState(search_of())
    other = SearchState(search_of(reproducibility={"experiment_seed": 6}))
    assert len(one.trials) == 4
    for mine, equal, another in zip(one.trials, same.trials, other.trials, strict=True):
        assert (mine.point, mine.seed) == (equal.point, equal.seed)
        assert mine.point != another.point
        assert mine.seed != another.seed
