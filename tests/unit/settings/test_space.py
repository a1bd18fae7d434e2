"""A space holds what the file says; samples, corners and grids lie within it."""

from __future__ import annotations

import itertools
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natdgp.settings import SettingsError
from natdgp.settings.domains import Const, Double, Int, Log
from natdgp.settings.space import Space, value_at

NAMES = st.sampled_from(["a", "b", "c", "global_batch_size", "model"])
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers())
NUMBERS = st.floats(-50, 50).map(lambda x: round(x, 3))


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["int", "double", "log"]))
    ends = st.integers(-40, 40) if kind == "int" else NUMBERS
    low, high = sorted(draw(st.lists(ends, min_size=2, max_size=2, unique=True)))
    base = {"base": draw(st.sampled_from([0.5, 2, 10.0]))} if kind == "log" else {}
    return {"type": kind, "minval": low, "maxval": high, "count": draw(st.integers(1, 4)), **base}


LEAVES = (
    VALUES
    | ranges()
    | st.builds(lambda vals: {"type": "categorical", "vals": vals}, st.lists(VALUES, min_size=1))
    | st.builds(lambda val: {"type": "const", "val": val}, VALUES | st.just({"name": "x"}))
)
GROUPS = st.dictionaries(
    NAMES, st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3)), max_size=4
)
SPACES = GROUPS.map(Space.read)


@settings(deadline=None)
@given(SPACES, st.integers())
def test_every_sample_lies_within_the_space_and_has_its_types(space: Space, seed: int) -> None:
    point = space.sample(Random(seed))
    assert space.contains(point)
    for path, domain in space.domains:
        kinds: dict[type, type] = {Int: int, Double: float, Log: float}
        if type(domain) in kinds:
            assert type(value_at(point, path)) is kinds[type(domain)]


@settings(deadline=None)
@given(SPACES, st.integers())
def test_equal_seeds_draw_equal_points(space: Space, seed: int) -> None:
    assert space.sample(Random(seed)) == space.sample(Random(seed))


@settings(deadline=None)
@given(SPACES)
def test_a_space_is_read_back_from_its_plain_form(space: Space) -> None:
    assert Space.read(space.to_plain()) == space


@settings(deadline=None)
@given(SPACES)
def test_a_grid_is_exactly_the_product_of_its_axes(space: Space) -> None:
    if math.prod(len(domain.grid) for _, domain in space.domains) > 2000:
        return
    points = list(space.grid())
    values = [tuple(value_at(point, path) for path, _ in space.domains) for point in points]
    assert values == list(itertools.product(*(domain.grid for _, domain in space.domains)))
    assert all(set(point) == {path[0] for path, _ in space.domains} for point in points)


@settings(deadline=None)
@given(SPACES, st.integers(1, 50))
def test_corners_are_extreme_and_no_more_than_asked(space: Space, most: int) -> None:
    corners = list(space.corners(most, Random(0)))
    assert 1 <= len(corners) <= most
    for corner in corners:
        assert all(value_at(corner, path) in domain.ends for path, domain in space.domains)


@settings(deadline=None)
@given(ranges())
def test_the_ends_of_a_log_range_are_powers(given_range: dict[str, Any]) -> None:
    if given_range["type"] == "log":
        (low, high) = Space.read({"x": given_range}).domains[0][1].ends
        assert low == given_range["base"] ** given_range["minval"]
        assert high == given_range["base"] ** given_range["maxval"]


# Counted by hand from the master's rules.
@pytest.mark.parametrize(
    ("given_range", "expected"),
    [
        ({"type": "int", "minval": 1, "maxval": 4, "count": 2}, [1, 4]),
        ({"type": "int", "minval": 1, "maxval": 4, "count": 9}, [1, 2, 3, 4]),
        ({"type": "int", "minval": 0, "maxval": 5, "count": 3}, [0, 3, 5]),  # 2.5 to 3
        ({"type": "int", "minval": -5, "maxval": 0, "count": 3}, [-5, -3, 0]),  # -2.5 to -3
        ({"type": "int", "minval": 1, "maxval": 4, "count": 1}, [3]),  # 2.5 to 3
        ({"type": "double", "minval": 0, "maxval": 1, "count": 1}, [0.5]),
        ({"type": "double", "minval": 0, "maxval": 1, "count": 5}, [0, 0.25, 0.5, 0.75, 1]),
        ({"type": "log", "base": 10, "minval": -3, "maxval": -1, "count": 3}, [1e-3, 1e-2, 1e-1]),
        ({"type": "log", "base": 4, "minval": 0, "maxval": 1, "count": 1}, [2.0]),
        ({"type": "categorical", "vals": [3, "x", None]}, [3, "x", None]),
        ({"type": "const", "val": {"name": "x"}}, [{"name": "x"}]),
    ],
)
def test_grids_are_determineds(given_range: dict[str, Any], expected: list[Any]) -> None:
    assert [point["x"] for point in Space.read({"x": given_range}).grid()] == expected


def test_the_last_name_of_a_grid_changes_fastest_whatever_the_order_of_the_file() -> None:
    two = {"type": "int", "minval": 1, "maxval": 2, "count": 2}
    points = list(Space.read({"b": two, "a": {"c": two}}).grid())
    assert points == [{"a": {"c": c}, "b": b} for c in (1, 2) for b in (1, 2)]


def test_both_bounds_of_an_integer_are_drawn() -> None:
    space = Space.read({"x": {"type": "int", "minval": 3, "maxval": 5}})
    assert {space.sample(Random(seed))["x"] for seed in range(50)} == {3, 4, 5}


def test_constants_are_unwrapped_at_every_depth_and_empty_groups_stay() -> None:
    given_values = {
        "global_batch_size": {"type": "const", "val": 8},
        "model": {"layers": {"type": "const", "val": 2}, "kernel": {"ard": True}},
        "natural_gradient": {"layers": {"type": "const", "val": [0, 1]}},
        "adam": {},
    }
    assert Space.read(given_values).constants == {
        "global_batch_size": 8,
        "model": {"layers": 2, "kernel": {"ard": True}},
        "natural_gradient": {"layers": [0, 1]},
        "adam": {},
    }


def test_what_is_searched_is_named_by_its_place_in_the_file() -> None:
    space = Space.read({"model": {"layers": {"type": "int", "minval": 1, "maxval": 3}, "x": 2}})
    assert space.searched == {"hyperparameters.model.layers": Int(type="int", minval=1, maxval=3)}
    assert dict(space.domains)["model", "x"] == Const(val=2)


@pytest.mark.parametrize(
    ("given_value", "path", "fragment"),
    [
        ({"type": "cosnt", "val": 3}, "x.type", "did you mean const?"),
        ({"type": [1], "val": 3}, "x.type", "must be one of const, int"),
        ({"type": "const"}, "x.val", "required"),
        ({"type": "int", "minval": 1}, "x.maxval", "required; must be a whole number"),
        ({"type": "int", "minval": 1, "maxval": 2.5}, "x.maxval", "received 2.5"),
        ({"type": "int", "minval": 3, "maxval": 3}, "x", "minval, 3, must be below maxval, 3"),
        ({"type": "double", "minval": 3, "maxval": 1}, "x", "must be below"),
        ({"type": "double", "minval": -1e308, "maxval": 1e308}, "x", "too wide"),
        ({"type": "double", "minval": 1, "maxval": 3, "cuont": 2}, "x.cuont", "mean count?"),
        ({"type": "double", "minval": 1, "maxval": 3, "count": 0}, "x.count", "above 0"),
        ({"type": "log", "minval": 1, "maxval": 3}, "x.base", "required"),
        ({"type": "log", "minval": 1, "maxval": 3, "base": 0}, "x.base", "above 0"),
        ({"type": "log", "minval": 1, "maxval": 3000, "base": 10}, "x", "exponents, not values"),
        ({"type": "log", "minval": -3000, "maxval": 1, "base": 10}, "x", "exponents, not values"),
        ({"type": "categorical", "vals": []}, "x.vals", "of at least 1"),
        ({"type": "categorical"}, "x.vals", "required"),
    ],
)
def test_a_malformed_hyperparameter_is_refused(given_value: Any, path: str, fragment: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Space.read({"model": {"x": given_value}})
    (problem,) = caught.value.problems
    assert problem.path == f"hyperparameters.model.{path}"
    assert fragment in str(problem)


def test_problems_of_several_hyperparameters_come_together() -> None:
    wrong = {"type": "int", "minval": 1}
    with pytest.raises(SettingsError) as caught:
        Space.read({"global_batch_size": wrong, "model": {"layers": wrong}})
    assert len(caught.value.problems) == 2
