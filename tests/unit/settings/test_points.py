from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from natdgp.settings.points import CORNERS, SAMPLES, problems_of_points, tried_points
from natdgp.settings.problems import Problem
from natdgp.settings.space import Point, Space

TWO = {"type": "categorical", "vals": [1, 2]}
SPACE = Space.read({"a": TWO, "b": {"c": {"type": "double", "minval": 0.0, "maxval": 1.0}}})


def test_all_corners_and_a_sample_are_tried_the_same_ones_every_time() -> None:
    tried = list(tried_points(SPACE))
    corners = [{"a": a, "b": {"c": c}} for a in (1, 2) for c in (0.0, 1.0)]
    assert tried[:4] == corners
    assert len(tried) == 4 + SAMPLES
    assert tried == list(tried_points(SPACE))


def test_constants_are_one_point() -> None:
    assert list(tried_points(Space.read({"a": 1}))) == [{"a": 1}]


def test_of_very_many_corners_some_are_tried() -> None:
    space = Space.read({f"x{i}": TWO for i in range(11)})
    assert len(list(tried_points(space))) == CORNERS + SAMPLES


def test_a_problem_names_the_first_point_that_has_it_and_comes_once() -> None:
    def examine(point: Point) -> Iterator[Problem]:
        if point["a"] == 2:
            yield Problem("hyperparameters.a", point["a"], "must be 1", "set another value")

    (problem,) = problems_of_points(SPACE, examine)
    assert problem.message == "must be 1 (at the point {a: 2, b.c: 0.0})"


def test_a_problem_of_all_points_is_none_of_a_point() -> None:
    def examine(point: Point) -> Iterator[Problem]:
        yield Problem("hyperparameters.x", 3, "there is no field x", "remove it")

    found: list[Any] = problems_of_points(SPACE, examine)
    assert [problem.message for problem in found] == ["there is no field x"]


def test_a_grid_is_tried_at_its_own_points() -> None:
    even = Space.read({"rows": {"type": "int", "minval": 2, "maxval": 8, "count": 4}})
    assert [point["rows"] for point in tried_points(even, of_grid=True)] == [2, 4, 6, 8]


def test_of_a_large_grid_some_points_are_tried_both_ends_among_them() -> None:
    fine = Space.read({"x": {"type": "double", "minval": 0.0, "maxval": 1.0, "count": 5000}})
    tried = [point["x"] for point in tried_points(fine, of_grid=True)]
    assert tried[:2] == [0.0, 1.0]
    assert len(tried) == 2 + CORNERS + SAMPLES
    grid = set(fine.searched["hyperparameters.x"].grid)
    assert grid.issuperset(tried)
