"""Several searchers beside each other, each hearing of its own trials alone."""

from __future__ import annotations

from collections.abc import Sequence

from natdgp.search.decisions import Decision, Ending, Outlook, Searcher


class Tournament:
    """The brackets of adaptive_asha."""

    def __init__(self, searchers: Sequence[Searcher]) -> None:
        self._searchers = searchers
        self._searcher_of: dict[int, Searcher] = {}

    def start(self) -> Decision:
        created = [
            number
            for searcher in self._searchers
            for number in self._own(searcher, searcher.start()).created
        ]
        return Decision(tuple(created))

    def validated(self, trial: int, length: int, value: float) -> Decision:
        searcher = self._searcher_of[trial]
        return self._own(searcher, searcher.validated(trial, length, value))

    def ended(self, trial: int, ending: Ending) -> Decision:
        searcher = self._searcher_of[trial]
        return self._own(searcher, searcher.ended(trial, ending))

    def rung(self, trial: int) -> str:
        return self._searcher_of[trial].rung(trial)

    def outlook(self) -> Outlook:
        outlooks = [searcher.outlook() for searcher in self._searchers]
        return Outlook(
            {trial: end for outlook in outlooks for trial, end in outlook.ends.items()},
            tuple(end for outlook in outlooks for end in outlook.to_come),
        )

    def _own(self, searcher: Searcher, decision: Decision) -> Decision:
        self._searcher_of.update(dict.fromkeys(decision.created, searcher))
        return decision
