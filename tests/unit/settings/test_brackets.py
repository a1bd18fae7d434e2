"""Rungs, shares of trials and of concurrency, worked out by hand from the master's formulas."""

from __future__ import annotations

from typing import Any

import pytest

from natdgp.settings.brackets import Bracket, brackets_of, rung_lengths
from natdgp.settings.searchers import AdaptiveSearcher, AsyncHalvingSearcher
from natdgp.settings.spans import Length


def adaptive(**fields: Any) -> list[tuple[tuple[int, ...], int, int]]:
    time = fields.pop("max_time", 64)
    searcher = AdaptiveSearcher.model_validate(
        {
            "name": "adaptive_asha",
            "metric": "val_nlpd",
            "max_time": time,
            "time_metric": "batches",
            "max_length": {"batches": time},
            **fields,
        }
    )
    return [(b.rungs, b.max_trials, b.concurrent) for b in brackets_of(searcher)]


def test_a_rung_is_the_next_one_divided_and_never_below_one() -> None:
    assert rung_lengths(3, 4.0, 4000) == (250, 1000, 4000)
    assert rung_lengths(4, 4.0, 10) == (1, 1, 2, 10)
    assert rung_lengths(1, 4.0, 10) == (10,)


def test_standard_mode_takes_the_upper_half_of_the_brackets() -> None:
    # Weights 16/3 and 4/2: 32 * 5.33 / 7.33 = 23.3 and 32 * 2 / 7.33 = 8.7; the one left over goes
    # to the first. 8 at once are 4 for each.
    assert adaptive(max_trials=32, max_rungs=3, max_concurrent_trials=8) == [
        ((4, 16, 64), 24, 4),
        ((16, 64), 8, 4),
    ]


def test_conservative_mode_takes_all_and_aggressive_mode_one() -> None:
    # Weights 16/3, 4/2 and 1 of 8.33: 20.5, 7.7 and 3.8.
    assert adaptive(max_trials=32, max_rungs=3, mode="conservative", max_concurrent_trials=10) == [
        ((4, 16, 64), 22, 4),
        ((16, 64), 7, 3),
        ((64,), 3, 3),
    ]
    assert adaptive(max_trials=32, max_rungs=3, mode="aggressive") == [((4, 16, 64), 32, 16)]


@pytest.mark.parametrize(
    ("max_time", "max_trials", "rungs"), [(15, 1000, 2), (1000, 15, 2), (16, 16, 3), (1, 9, 1)]
)
def test_there_are_no_more_rungs_than_length_and_trials_allow(
    max_time: int, max_trials: int, rungs: int
) -> None:
    (bracket, *_) = adaptive(max_time=max_time, max_trials=max_trials, mode="aggressive")
    assert len(bracket[0]) == rungs


def test_rungs_may_be_given_for_every_bracket() -> None:
    assert [len(rungs) for rungs, _, _ in adaptive(max_trials=9, bracket_rungs=[2, 3])] == [3, 2]


def test_concurrency_is_by_default_of_the_smallest_bracket_and_at_least_one_each() -> None:
    found = adaptive(max_trials=32, max_rungs=3, max_concurrent_trials=0)
    assert [concurrent for _, _, concurrent in found] == [8, 8]
    found = adaptive(max_trials=32, max_rungs=3, max_concurrent_trials=1)
    assert [concurrent for _, _, concurrent in found] == [1, 1]


@pytest.mark.parametrize(
    ("asked", "max_trials", "concurrent"), [(16, 40, 16), (16, 5, 5), (0, 40, 16), (0, 5, 5)]
)
def test_async_halving_is_one_bracket(asked: int, max_trials: int, concurrent: int) -> None:
    searcher = AsyncHalvingSearcher(
        name="async_halving",
        metric="val_nlpd",
        max_time=16,
        time_metric="epochs",
        max_length=Length(epochs=16),
        num_rungs=3,
        max_trials=max_trials,
        max_concurrent_trials=asked,
    )
    assert brackets_of(searcher) == (Bracket((1, 4, 16), 4.0, max_trials, concurrent),)
