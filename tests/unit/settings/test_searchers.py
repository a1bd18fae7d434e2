"""Fields and defaults; rungs and shares, worked out by hand from the master's formulas."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from natdgp.settings.searchers import Bracket, Searcher

READ = TypeAdapter[Any](Searcher).validate_python
LENGTH = {"metric": "val_nlpd", "max_length": {"batches": 64}}
HALVING = {**LENGTH, "max_time": 64, "time_metric": "batches", "max_trials": 8}
VALID: dict[str, dict[str, Any]] = {
    "single": LENGTH,
    "random": {**LENGTH, "max_trials": 4},
    "grid": LENGTH,
    "async_halving": {**HALVING, "num_rungs": 3},
    "adaptive_asha": HALVING,
}


@pytest.mark.parametrize("name", VALID)
def test_every_searcher_of_determined_is_known_by_the_fields_it_requires(name: str) -> None:
    assert READ({"name": name, **VALID[name]}).name == name
    for field in VALID[name]:
        with pytest.raises(ValidationError, match=rf"{field}\n  Field required"):
            READ({"name": name, **VALID[name], field: None})


def test_defaults_are_the_masters() -> None:
    searcher = READ({"name": "adaptive_asha", **HALVING})
    assert (searcher.divisor, searcher.max_rungs, searcher.mode) == (4.0, 5, "standard")
    assert (searcher.max_concurrent_trials, searcher.bracket_rungs) == (16, ())
    assert (searcher.source_trial_id, searcher.stop_once) == (None, None)


def brackets(name: str = "adaptive_asha", **fields: Any) -> tuple[Bracket, ...]:
    found: tuple[Bracket, ...] = READ({"name": name, **HALVING, **fields}).brackets
    return found


def adaptive(**fields: Any) -> list[tuple[tuple[int, ...], int, int]]:
    return [(b.rungs, b.max_trials, b.concurrent) for b in brackets(**fields)]


@pytest.mark.parametrize(
    ("rungs", "time", "lengths"),
    [(3, 4000, (250, 1000, 4000)), (4, 10, (1, 1, 2, 10)), (1, 10, (10,))],
)
def test_a_rung_is_the_next_one_divided_and_never_below_one(
    rungs: int, time: int, lengths: tuple[int, ...]
) -> None:
    (bracket,) = brackets("async_halving", num_rungs=rungs, max_time=time)
    assert bracket.rungs == lengths


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # Weights 16/3 and 4/2: 32 * 5.33 / 7.33 = 23.3 and 32 * 2 / 7.33 = 8.7; the one left over
        # goes to the first. 8 at once are 4 for each.
        ({"max_concurrent_trials": 8}, [((4, 16, 64), 24, 4), ((16, 64), 8, 4)]),
        # Weights 16/3, 4/2 and 1 of 8.33: 20.5, 7.7 and 3.8.
        (
            {"mode": "conservative", "max_concurrent_trials": 10},
            [((4, 16, 64), 22, 4), ((16, 64), 7, 3), ((64,), 3, 3)],
        ),
        ({"mode": "aggressive"}, [((4, 16, 64), 32, 16)]),
        # By default those of the smallest bracket are under way, and at least one of each.
        ({"max_concurrent_trials": 0}, [((4, 16, 64), 24, 8), ((16, 64), 8, 8)]),
        ({"max_concurrent_trials": 1}, [((4, 16, 64), 24, 1), ((16, 64), 8, 1)]),
    ],
)
def test_trials_and_concurrency_are_shared_out_among_the_brackets_of_a_mode(
    fields: dict[str, Any], expected: list[Any]
) -> None:
    assert adaptive(max_trials=32, max_rungs=3, **fields) == expected


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


@pytest.mark.parametrize(
    ("asked", "max_trials", "concurrent"), [(16, 40, 16), (16, 5, 5), (0, 40, 16), (0, 5, 5)]
)
def test_async_halving_is_one_bracket(asked: int, max_trials: int, concurrent: int) -> None:
    given = {"num_rungs": 3, "max_time": 16, "max_trials": max_trials}
    found = brackets("async_halving", **given, max_concurrent_trials=asked)
    assert found == (Bracket((1, 4, 16), 4.0, max_trials, concurrent),)
