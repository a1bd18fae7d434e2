"""The searcher that an experiment file asks for."""

from __future__ import annotations

import itertools

from natdgp.search.decisions import Searcher
from natdgp.search.halving import Halving
from natdgp.search.successors import Succession
from natdgp.search.tournament import Tournament
from natdgp.settings import Search
from natdgp.settings.brackets import brackets_of
from natdgp.settings.searchers import GridSearcher, HalvingSearcher, RandomSearcher


def searcher_of(search: Search) -> Searcher:
    """A new searcher, which was told nothing yet; trials are numbered from 0."""
    settings, numbers = search.searcher, itertools.count()
    if isinstance(settings, HalvingSearcher):
        smaller = settings.smaller_is_better
        return Tournament(
            [Halving(b, numbers, smaller_is_better=smaller) for b in brackets_of(settings)]
        )
    concurrent = 1
    if isinstance(settings, RandomSearcher | GridSearcher):
        concurrent = settings.max_concurrent_trials
    return Succession(
        most_trials(search),
        concurrent,
        numbers,
        replaces_invalid=replaces_invalid(search),
    )


def replaces_invalid(search: Search) -> bool:
    """Whether an invalid trial gives way to another point."""
    return isinstance(search.searcher, RandomSearcher | HalvingSearcher)


def most_trials(search: Search) -> int:
    """How many trials there are, those that prove invalid and are replaced not counted."""
    settings = search.searcher
    if isinstance(settings, HalvingSearcher):
        return sum(bracket.max_trials for bracket in brackets_of(settings))
    if isinstance(settings, RandomSearcher):
        return settings.max_trials
    if isinstance(settings, GridSearcher):
        return search.space.grid_size
    return 1
