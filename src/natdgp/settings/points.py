"""Whether every point of a space makes a trial: extreme and random points are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from random import Random
from typing import Any, Final

from natdgp.settings.problems import Problem
from natdgp.settings.space import Point, Space, place_of, value_at

CORNERS: Final = 1024
"""Points at which every hyperparameter is extreme, at most; of more, so many are drawn."""

SAMPLES: Final = 256
"""Random points."""

Examine = Callable[[Point], Iterable[Problem]]


def tried_points(space: Space, *, of_grid: bool = False) -> Iterator[Point]:
    """The points that are tried, the same ones every time; a space of constants has one.

    :param of_grid: try points of the grid alone, all of them if there are not too many.
    """
    rng = Random(0)
    if of_grid:
        size = space.grid_size
        few = size <= CORNERS + SAMPLES
        yield from map(space.grid_point, range(size) if few else _drawn(size, rng))
        return
    yield from space.corners(CORNERS, rng)
    if space.searched:
        yield from (space.sample(rng) for _ in range(SAMPLES))


def _drawn(size: int, rng: Random) -> list[int]:
    """Some points of a grid, the first and the last among them."""
    return [0, size - 1, *(rng.randrange(size) for _ in range(CORNERS + SAMPLES))]


def problems_of_points(space: Space, examine: Examine, *, of_grid: bool = False) -> list[Problem]:
    """For each field that is wrong at some points, its problem at the first of them.

    :param examine: finds the problems of one point.
    :param of_grid: the search visits the points of the grid alone.
    """
    tried = list(tried_points(space, of_grid=of_grid))
    found: dict[str, tuple[Problem, Point, int]] = {}
    for point in tried:
        for problem in examine(point):
            first, where, times = found.get(problem.path, (problem, point, 0))
            found[problem.path] = (first, where, times + 1)
    return [
        problem if times == len(tried) else _at(problem, space, point)
        for problem, point, times in found.values()
    ]


def _at(problem: Problem, space: Space, point: Mapping[str, Any]) -> Problem:
    """The problem with the point that has it, as far as it is searched over."""
    values = {name: value_at(point, place_of(name)) for name in space.searched}
    shown = ", ".join(f"{name.partition('.')[2]}: {value!r}" for name, value in values.items())
    return replace(problem, message=f"{problem.message} (at the point {{{shown}}})")
