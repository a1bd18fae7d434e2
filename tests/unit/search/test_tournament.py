from __future__ import annotations

import itertools

from natdgp.search.decisions import Decision, Verdict
from natdgp.search.halving import Halving
from natdgp.search.tournament import Tournament
from natdgp.settings.brackets import Bracket


def test_each_bracket_hears_of_its_own_trials_alone() -> None:
    numbers = itertools.count()
    brackets = [Bracket((1, 3), 3.0, 4, 2), Bracket((3,), 3.0, 2, 1)]
    tournament = Tournament([Halving(b, numbers, smaller_is_better=True) for b in brackets])
    assert tournament.start() == Decision((0, 1, 2))
    assert tournament.validated(0, 1, 1.0) == Decision()
    assert tournament.validated(1, 1, 2.0) == Decision((3,), Verdict.STOP)
    assert tournament.validated(2, 1, 9.0) == Decision(), "its first rung is 3"
    assert tournament.validated(2, 3, 9.0) == Decision((4,), Verdict.TOP)
    assert [tournament.rung(trial) for trial in (0, 2, 3, 4)] == [
        "1 of 2",
        "1 of 1",
        "0 of 2",
        "0 of 1",
    ]
