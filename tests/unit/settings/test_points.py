from __future__ import annotations

from collections.abc import Iterator

from natdgp.settings.points import CORNERS, SAMPLES, problems_of_points, tried_points
from natdgp.settings.problems import Problem
from natdgp.settings.space import Point, read_space

TWO = {"type": "categorical", "vals": [1, 2]}
SPACE, _ = read_space({"a": TWO, "b": {"c": {"type": "double", "minval": 0.0, "maxval": 1.0}}})


def test_all_corners_and_a_sample_are_tried_the_same_ones_every_time() -> None:
    tried = tried_points(SPACE)
    corners = [{"a": a, "b": {"c": c}} for a in (1, 2) for c in (0.0, 1.0)]
    assert tried[:4] == corners
    assert len(tried) == 4 + SAMPLES
    assert tried == tried_points(SPACE)


def test_constants_are_one_point() -> None:
    assert tried_points(read_space({"a": 1})[0]) == [{"a": 1}]


def test_of_very_many_corners_some_are_tried() -> None:
    space, _ = read_space({f"x{i}": TWO for i in range(11)})
    assert len(tried_points(space)) == CORNERS + SAMPLES


def test_a_grid_is_tried_at_its_own_points() -> None:
    even, _ = read_space({"rows": {"type": "int", "minval": 2, "maxval": 8, "count": 4}})
    assert [point["rows"] for point in tried_points(even, of_grid=True)] == [2, 4, 6, 8]


def test_a_problem_names_the_first_point_that_has_it_and_comes_once() -> None:
    def examine(point: Point) -> Iterator[Problem]:
        yield Problem("hyperparameters.x", 3, "of all", "remove it")
        if point["a"] == 2:
            yield Problem("hyperparameters.a", point["a"], "must be 1", "set another value")

    everywhere, at_some = problems_of_points(tried_points(SPACE), SPACE, examine)
    assert everywhere.message == "of all"
    assert at_some.message == "must be 1 (at the point {a: 2, b.c: 0.0})"
