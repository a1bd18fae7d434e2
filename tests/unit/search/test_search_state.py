from __future__ import annotations

import pytest

from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_state import SearchState, ended, validated
from tests.unit.search.conftest import RANDOM, Write


@pytest.mark.parametrize("concurrent", [0, 3])
def test_so_many_trials_begin_at_once(search_of: Write, concurrent: int) -> None:
    state = SearchState(search_of(searcher={**RANDOM, "max_concurrent_trials": concurrent}))
    assert len(state.trials) == (concurrent or 4)


def test_a_search_costs_at_most_every_trial_to_the_end(search_of: Write) -> None:
    for searcher, trials, steps in ({"searcher": RANDOM}, 4, 24), ({}, 12, 12 * 18):
        state = SearchState(search_of(**searcher))
        assert (state.most_trials, state.most_steps) == (trials, steps)


def test_epochs_cost_what_the_batch_size_of_each_trial_makes_of_them(search_of: Write) -> None:
    searcher = {**RANDOM, "max_length": {"epochs": 2}}
    seed = {"experiment_seed": 6}
    search = search_of(searcher=searcher, records_per_epoch=320, reproducibility=seed)
    rows = [trial.point["global_batch_size"] for trial in SearchState(search).trials]
    assert set(rows) == {32, 64}
    assert SearchState(search).most_steps == sum(640 // each for each in rows)


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
        state.take(validated(trial, length, length, value))
        assert (state.trials[trial].to_end, len(state.trials)) == (to_end, trials)
    rungs = [state.trials[number].rung for number in (0, 2, 3, 4)]
    assert rungs == ["1 of 2", "1 of 1", "0 of 2", "0 of 1"]


def test_a_decision_that_ends_a_trial_stands_whatever_comes_late(search_of: Write) -> None:
    state = SearchState(search_of())
    state.take(validated(0, 2, 2, 1.0))
    state.take(validated(1, 2, 2, 9.0))
    assert [state.trials[n].to_end for n in (0, 1)] == [None, TrialEnding.STOPPED]
    state.take(validated(1, 4, 4, 0.5))
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
        state.take(ended(number, ending))
        counts.append(state.invalid_in_a_row)
    assert counts == [0, 1, 2, 0, 1]
    state.take(validated(4, 2, 2, 1.0))
    assert state.invalid_in_a_row == 1


def test_equal_seeds_search_the_same_points_and_others_do_not(search_of: Write) -> None:
    one, same = SearchState(search_of()), SearchState(search_of())
    other = SearchState(search_of(reproducibility={"experiment_seed": 6}))
    assert len(one.trials) == 4
    for mine, equal, another in zip(one.trials, same.trials, other.trials, strict=True):
        assert (mine.point, mine.seed) == (equal.point, equal.seed)
        assert mine.point != another.point
        assert mine.seed != another.seed
