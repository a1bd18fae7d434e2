"""Decisions of searchers; those of halving beside a reference that counts anew each time."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natdgp.search.search_methods import (
    Decision,
    SearchMethod,
    SuccessiveHalving,
    TrialEnding,
)
from natdgp.settings.searchers import Bracket

Happening = tuple[Any, ...]
"""("validated", trial, length, value) or ("ended", trial, ending)."""


def reference(bracket: Bracket, happenings: list[Happening], *, smaller: bool) -> Decision:
    """What follows from the last happening, by counting through the whole record from its start."""
    created, invalid, at, over = bracket.concurrent, set(), {}, set()
    marks: list[tuple[int, int, float]] = []  # (rung, trial, value) in the order they came
    for trial in range(created):
        at[trial] = 0
    answer = Decision()
    for kind, trial, *rest in happenings:
        over_at: TrialEnding | None = None
        more = 0
        if kind == "ended" and rest[0] is TrialEnding.INVALID:
            invalid.add(trial)
            over.add(trial)
            marks = [mark for mark in marks if mark[1] != trial]
            more = 1
        elif kind == "ended":
            if rest[0] is TrialEnding.FAILED and trial not in over:
                marks.append((at[trial], trial, math.inf))
                more = int(created - len(invalid) < bracket.max_trials)
            over.add(trial)
        elif trial not in over:
            length, value = rest[0], rest[1] if smaller else -rest[1]
            if value != value or abs(value) == math.inf:
                value = math.inf
            while over_at is None and length >= bracket.rungs[at[trial]]:
                better = sum(mark[0] == at[trial] and mark[2] < value for mark in marks)
                marks.append((at[trial], trial, value))
                seen = sum(mark[0] == at[trial] for mark in marks)
                if at[trial] == len(bracket.rungs) - 1:
                    over_at = TrialEnding.COMPLETED
                elif better >= max(math.floor(seen / bracket.divisor), 1):
                    over_at = TrialEnding.STOPPED
                else:
                    at[trial] += 1
            if over_at is not None:
                over.add(trial)
                more = int(created - len(invalid) < bracket.max_trials)
        new = tuple(range(created, created + more))
        at.update(dict.fromkeys(new, 0))
        created += more
        answer = Decision(new, over_at)
    return answer


@st.composite
def records(draw: st.DrawFn) -> tuple[Bracket, list[Happening], bool]:
    """A bracket and what happens in it, as far as the trials it creates allow."""
    rungs = tuple(sorted(draw(st.sets(st.integers(1, 40), min_size=1, max_size=4))))
    max_trials = draw(st.integers(1, 12))
    bracket = Bracket(
        rungs,
        draw(st.sampled_from([1.5, 2.0, 3.0, 4.0])),
        max_trials,
        draw(st.integers(1, max_trials)),
    )
    smaller = draw(st.booleans())
    happenings: list[Happening] = []
    trials, lengths = bracket.concurrent, dict.fromkeys(range(50), 0)
    for _ in range(draw(st.integers(1, 30))):
        trial = draw(st.integers(0, trials - 1))  # those that ended included: late results
        if draw(st.integers(0, 5)):
            lengths[trial] += draw(st.integers(1, 20))
            happening: Happening = (
                "validated",
                trial,
                lengths[trial],
                draw(st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan, math.inf, -math.inf])),  # ties
            )
        elif any(other[:2] == ("ended", trial) for other in happenings):
            continue
        else:
            happening = ("ended", trial, draw(st.sampled_from(TrialEnding)))
        happenings.append(happening)
        trials += len(reference(bracket, happenings, smaller=smaller).created)
    return bracket, happenings, smaller


def tell(halving: SuccessiveHalving, happening: Happening) -> Decision:
    kind, *rest = happening
    return halving.validated(*rest) if kind == "validated" else halving.ended(*rest)


@settings(max_examples=300, deadline=None)
@given(records())
def test_decisions_equal_those_of_the_reference(
    record: tuple[Bracket, list[Happening], bool],
) -> None:
    bracket, happenings, smaller = record
    halving = SuccessiveHalving(bracket, itertools.count(), smaller_is_better=smaller)
    assert halving.start().created == tuple(range(bracket.concurrent))
    for index, happening in enumerate(happenings):
        expected = reference(bracket, happenings[: index + 1], smaller=smaller)
        assert tell(halving, happening) == expected


# Worked out by hand: rungs at 1, 3 and 9
# of a length of 9, one of 3 goes on.
THREE = Bracket(rungs=(1, 3, 9), divisor=3.0, max_trials=9, concurrent=3)


@pytest.fixture
def halving() -> SuccessiveHalving:
    halving = SuccessiveHalving(THREE, itertools.count(), smaller_is_better=True)
    halving.start()
    return halving


def test_the_first_at_a_rung_goes_on_and_a_worse_one_stops(halving: SuccessiveHalving) -> None:
    assert halving.validated(0, 1, 5.0) == Decision()
    assert halving.validated(1, 1, 6.0) == Decision((3,), TrialEnding.STOPPED)
    assert halving.validated(2, 1, 4.0) == Decision()
    assert halving.rung(0) == "1 of 3"


def test_equal_values_go_before_those_that_came_first(halving: SuccessiveHalving) -> None:
    assert halving.validated(0, 1, 5.0) == Decision()
    assert halving.validated(1, 1, 5.0) == Decision()


def test_a_validation_between_rungs_decides_nothing(halving: SuccessiveHalving) -> None:
    halving.validated(0, 1, 5.0)
    assert halving.validated(0, 2, 99.0) == Decision()
    assert halving.rung(0) == "1 of 3"


def test_a_validation_may_pass_several_rungs_at_once(halving: SuccessiveHalving) -> None:
    assert halving.validated(0, 9, 5.0) == Decision((3,), TrialEnding.COMPLETED)
    assert halving.validated(1, 5, 6.0) == Decision((4,), TrialEnding.STOPPED)
    assert (halving.rung(0), halving.rung(1)) == ("3 of 3", "1 of 3")


def test_the_values_of_an_invalid_trial_are_forgotten_and_another_takes_its_place(
    halving: SuccessiveHalving,
) -> None:
    halving.validated(0, 3, 1.0)
    assert halving.ended(0, TrialEnding.INVALID) == Decision((3,))
    assert halving.validated(1, 3, 2.0) == Decision(), "it is the first again at both rungs"


def test_a_failed_trial_counts_as_the_worst_at_its_rung(halving: SuccessiveHalving) -> None:
    assert halving.ended(0, TrialEnding.FAILED) == Decision((3,))
    assert halving.rung(0) == "0 of 3"
    assert halving.validated(1, 1, 1e300) == Decision()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("smaller", [True, False])
def test_what_is_no_number_is_the_worst(value: float, *, smaller: bool) -> None:
    halving = SuccessiveHalving(THREE, itertools.count(), smaller_is_better=smaller)
    halving.start()
    assert halving.validated(0, 1, 5.0) == Decision()
    assert halving.validated(1, 1, value) == Decision((3,), TrialEnding.STOPPED)


def test_no_more_trials_than_allowed_begin() -> None:
    bracket = Bracket(rungs=(1, 3), divisor=3.0, max_trials=2, concurrent=1)
    halving = SuccessiveHalving(bracket, itertools.count(), smaller_is_better=True)
    assert halving.start() == Decision((0,))
    assert halving.validated(0, 3, 1.0) == Decision((1,), TrialEnding.COMPLETED)
    assert halving.validated(1, 3, 2.0) == Decision((), TrialEnding.STOPPED)


def _method(trials: int, concurrent: int, *, again: bool = True) -> SearchMethod:
    return SearchMethod(trials, concurrent, itertools.count(), again)


def test_so_many_begin_and_each_that_ends_makes_room_for_another() -> None:
    method = _method(3, 2)
    assert method.start() == Decision((0, 1))
    assert method.validated(0, 10, 1.0) == Decision()
    assert method.ended(1, TrialEnding.COMPLETED) == Decision((2,))
    assert method.ended(0, TrialEnding.FAILED) == Decision()
    assert method.ended(2, TrialEnding.COMPLETED) == Decision()


def test_a_failed_trial_makes_room_for_the_next_and_is_not_made_up_for() -> None:
    method = _method(3, 1)
    method.start()
    assert method.ended(0, TrialEnding.FAILED) == Decision((1,))
    assert method.ended(1, TrialEnding.FAILED) == Decision((2,))
    assert method.ended(2, TrialEnding.COMPLETED) == Decision()


def test_without_a_limit_all_begin() -> None:
    assert _method(3, 0).start() == Decision((0, 1, 2))


def test_an_invalid_point_gives_way_to_another() -> None:
    method = _method(1, 1)
    method.start()
    assert method.ended(0, TrialEnding.INVALID) == Decision((1,))
    assert method.ended(1, TrialEnding.COMPLETED) == Decision()


def test_an_invalid_point_of_a_grid_does_not() -> None:
    method = _method(2, 2, again=False)
    method.start()
    assert method.ended(0, TrialEnding.INVALID) == Decision()
