"""Decisions of searchers; those of halving beside a reference that counts anew each time."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natdgp.search.search_methods import SearchMethod, TrialEnding
from natdgp.settings.searchers import Bracket

Happening = tuple[Any, ...]
"""("validated", trial, length, value) or ("ended", trial, ending)."""

Answer = tuple[int, "TrialEnding | None"]
"""How many trials are to have begun, and how the one that was validated is to end."""


def reference(bracket: Bracket, happenings: list[Happening], *, smaller: bool) -> Answer:
    """What follows from the last happening, by counting through the whole record from its start."""
    created, invalid, over = bracket.concurrent, set(), set()
    at: Counter[int] = Counter()
    marks: list[tuple[int, int, float]] = []  # (rung, trial, value) in the order they came
    answer: Answer = created, None
    for kind, trial, *rest in happenings:
        over_at: TrialEnding | None = None
        room = False
        if kind == "ended" and rest[0] is TrialEnding.INVALID:
            invalid.add(trial)
            marks = [mark for mark in marks if mark[1] != trial]
            room = True
        elif kind == "ended":
            if rest[0] is TrialEnding.FAILED and trial not in over:
                marks.append((at[trial], trial, math.inf))
                room = created - len(invalid) < bracket.max_trials
        elif trial not in over:
            length, value = rest[0], rest[1] if smaller else -rest[1]
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
            room = over_at is not None and created - len(invalid) < bracket.max_trials
        if kind == "ended" or over_at is not None:
            over.add(trial)
        created += room
        answer = created, over_at
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
                draw(st.sampled_from([0.0, 1.0, 2.0, 3.0])),  # with ties
            )
        elif any(other[:2] == ("ended", trial) for other in happenings):
            continue
        else:
            happening = ("ended", trial, draw(st.sampled_from(TrialEnding)))
        happenings.append(happening)
        trials, _ = reference(bracket, happenings, smaller=smaller)
    return bracket, happenings, smaller


def tell(method: SearchMethod, happening: Happening) -> Answer:
    kind, *rest = happening
    ending = None
    if kind == "validated":
        ending = method.validated(*rest)
    else:
        method.ended(*rest)
    return method.wanted, ending


@settings(max_examples=300, deadline=None)
@given(records())
def test_decisions_equal_those_of_the_reference(
    record: tuple[Bracket, list[Happening], bool],
) -> None:
    bracket, happenings, smaller = record
    method = SearchMethod(bracket, smaller_is_better=smaller)
    assert method.wanted == bracket.concurrent
    for index, happening in enumerate(happenings):
        expected = reference(bracket, happenings[: index + 1], smaller=smaller)
        assert tell(method, happening) == expected


# Worked out by hand: rungs at 1, 3 and 9
# of a length of 9, one of 3 goes on; three trials at first.
THREE = Bracket(rungs=(1, 3, 9), divisor=3.0, max_trials=9, concurrent=3)
COMPLETED, STOPPED, INVALID, FAILED = TrialEnding


@pytest.mark.parametrize(
    ("happenings", "answers", "rungs"),
    [
        pytest.param(
            [("validated", 0, 1, 5.0), ("validated", 1, 1, 6.0), ("validated", 2, 1, 4.0)],
            [(3, None), (4, STOPPED), (4, None)],
            [1, 1, 1],
            id="the first at a rung goes on and a worse one stops",
        ),
        pytest.param(
            [("validated", 0, 1, 5.0), ("validated", 1, 1, 5.0)],
            [(3, None), (3, None)],
            [1, 1],
            id="equal values go before those that came first",
        ),
        pytest.param(
            [("validated", 0, 1, 5.0), ("validated", 0, 2, 99.0)],
            [(3, None), (3, None)],
            [1],
            id="a validation between rungs decides nothing",
        ),
        pytest.param(
            [("validated", 0, 9, 5.0), ("validated", 1, 5, 6.0)],
            [(4, COMPLETED), (5, STOPPED)],
            [3, 1],
            id="a validation may pass several rungs at once",
        ),
        pytest.param(
            [("validated", 0, 3, 1.0), ("ended", 0, INVALID), ("validated", 1, 3, 2.0)],
            [(3, None), (4, None), (4, None)],
            [2, 2],
            id="the values of an invalid trial are forgotten and another takes its place",
        ),
        pytest.param(
            [("ended", 0, FAILED), ("validated", 1, 1, 1e300)],
            [(4, None), (4, None)],
            [0, 1],
            id="a failed trial counts as the worst at its rung",
        ),
        pytest.param(
            [("validated", 0, 1, 5.0), ("ended", 0, COMPLETED)],
            [(3, None), (3, None)],
            [1],
            id="one that ends of itself has no successor",
        ),
    ],
)
def test_halving_decides_as_worked_out_by_hand(
    happenings: list[Happening], answers: list[Answer], rungs: list[int]
) -> None:
    method = SearchMethod(THREE, smaller_is_better=True)
    assert [tell(method, happening) for happening in happenings] == answers
    assert [method.rung(n) for n in range(len(rungs))] == [f"{reached} of 3" for reached in rungs]


def test_no_more_trials_than_allowed_begin() -> None:
    method = SearchMethod(Bracket((1, 3), 3.0, 2, 1), smaller_is_better=True)
    assert tell(method, ("validated", 0, 3, 1.0)) == (2, COMPLETED)
    assert tell(method, ("validated", 1, 3, 2.0)) == (2, STOPPED)


def _method(trials: int, concurrent: int, *, again: bool = True) -> SearchMethod:
    bracket = Bracket((), 1.0, trials, concurrent)
    return SearchMethod(bracket, smaller_is_better=True, replaces_invalid=again)


def test_without_rungs_each_trial_that_ends_makes_room_for_another() -> None:
    method = _method(3, 2)
    assert (method.wanted, method.rung(0)) == (2, "")
    assert tell(method, ("validated", 0, 10, 1.0)) == (2, None)
    assert tell(method, ("ended", 1, FAILED)) == (3, None)
    assert tell(method, ("ended", 0, COMPLETED)) == (3, None)
    assert tell(method, ("ended", 2, COMPLETED)) == (3, None)


@pytest.mark.parametrize(("again", "trials"), [(True, 3), (False, 2)])
def test_an_invalid_point_gives_way_to_another_but_in_a_grid(*, again: bool, trials: int) -> None:
    method = _method(2, 2, again=again)
    assert tell(method, ("ended", 0, INVALID)) == (trials, None)
    assert tell(method, ("ended", 1, COMPLETED)) == (trials, None)
    assert method.most_trials == trials
