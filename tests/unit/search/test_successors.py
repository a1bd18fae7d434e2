from __future__ import annotations

import itertools

from natdgp.search.decisions import Decision, Ending
from natdgp.search.successors import Succession


def _succession(trials: int, concurrent: int, *, replaces_invalid: bool = True) -> Succession:
    return Succession(trials, concurrent, itertools.count(), replaces_invalid=replaces_invalid)


def test_so_many_begin_and_each_that_ends_makes_room_for_another() -> None:
    succession = _succession(3, 2)
    assert succession.start() == Decision((0, 1))
    assert succession.validated(0, 10, 1.0) == Decision()
    assert succession.ended(1, Ending.COMPLETED) == Decision((2,))
    assert succession.ended(0, Ending.FAILED) == Decision()
    assert succession.ended(2, Ending.COMPLETED) == Decision()


def test_a_failed_trial_makes_room_for_the_next_and_is_not_made_up_for() -> None:
    succession = _succession(3, 1)
    succession.start()
    assert succession.ended(0, Ending.FAILED) == Decision((1,))
    assert succession.ended(1, Ending.FAILED) == Decision((2,))
    assert succession.ended(2, Ending.COMPLETED) == Decision()


def test_without_a_limit_all_begin() -> None:
    assert _succession(3, 0).start() == Decision((0, 1, 2))


def test_an_invalid_point_gives_way_to_another() -> None:
    succession = _succession(1, 1)
    succession.start()
    assert succession.ended(0, Ending.INVALID) == Decision((1,))
    assert succession.ended(1, Ending.COMPLETED) == Decision()


def test_an_invalid_point_of_a_grid_does_not() -> None:
    succession = _succession(2, 2, replaces_invalid=False)
    succession.start()
    assert succession.ended(0, Ending.INVALID) == Decision()
