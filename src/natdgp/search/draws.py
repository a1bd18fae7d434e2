"""Hyperparameters and seed of a trial: functions of the experiment's seed and its number alone."""

from __future__ import annotations

from random import Random

from natdgp.settings import Search
from natdgp.settings.searchers import GridSearcher
from natdgp.settings.space import Point


def point_of(search: Search, number: int) -> Point:
    """The hyperparameters of a trial; a grid is searched from its last point, as Determined does.

    :param number: of the trial, from 0.
    """
    if isinstance(search.searcher, GridSearcher):
        return search.space.grid_point(search.space.grid_size - 1 - number)
    return search.space.sample(_stream(search, number, "hyperparameters"))


def seed_of(search: Search, number: int) -> int:
    """The seed of a trial, below 2**31."""
    return _stream(search, number, "seed").getrandbits(31)


def _stream(search: Search, number: int, purpose: str) -> Random:
    return Random(f"{search.seed}/{number}/{purpose}")
