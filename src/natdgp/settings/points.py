"""Whether every point of a space makes a trial: extreme and random points are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import Any, Final

from natdgp.settings.problems import Problem
from natdgp.settings.space import Point, Space, place_of, value_at

CORNERS: Final = 1024
"""Points at which every hyperparameter is extreme, at most; of more, so many are drawn."""

SAMPLES: Final = 256
"""Random points."""


def tried_points(space: Space, *, of_grid: bool = False) -> list[Point]:
    """The points that are tried, the same ones every time; a space of constants has one.

    :param of_grid: the points of the grid, in place of corners and random points.
    """
    if of_grid:
        return list(map(space.grid_point, range(space.grid_size)))
    rng = Random(0)
    corners = list(space.corners(CORNERS, rng))
    return [*corners, *(space.sample(rng) for _ in range(SAMPLES if space.domains else 0))]


def problems_of_points(
    points: list[Point], space: Space, examine: Callable[[Point], Iterable[Problem]]
) -> list[Problem]:
    """For each field that is wrong at some points, its problem at the first of them."""
    found: dict[str, tuple[Problem, Point, int]] = {}
    for point in points:
        for problem in examine(point):
            first, where, times = found.get(problem.path, (problem, point, 0))
            found[problem.path] = (first, where, times + 1)
    return [
        problem if times == len(points) else _at(problem, space, point)
        for problem, point, times in found.values()
    ]


def _at(problem: Problem, space: Space, point: Mapping[str, Any]) -> Problem:
    """The problem with the point that has it, as far as it is searched over."""
    values = {name: value_at(point, place_of(name)) for name in space.searched}
    shown = ", ".join(f"{name.partition('.')[2]}: {value!r}" for name, value in values.items())
    return replace(problem, message=f"{problem.message} (at the point {{{shown}}})")
