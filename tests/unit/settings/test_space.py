"""A space holds what the file says; samples, corners and grids lie within it."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natdgp.settings.domains import Categorical, Domain, Int
from natdgp.settings.space import CORNERS, SAMPLES, Space, read_space, value_at

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


def space_of(hyperparameters: dict[str, Any]) -> Space:
    space, problems = read_space(hyperparameters)
    assert not problems
    return space


SPACES = GROUPS.map(space_of)


def lies_in(value: Any, domain: Domain) -> bool:
    if isinstance(domain, Categorical):
        return value in domain.vals
    kind = int if isinstance(domain, Int) else float
    return type(value) is kind and min(domain.ends) <= value <= max(domain.ends)


@settings(deadline=None)
@given(SPACES, st.integers())
def test_every_sample_lies_within_the_space_and_equal_seeds_draw_equal_ones(
    space: Space, seed: int
) -> None:
    point = space.sample(Random(seed))
    assert all(lies_in(value_at(point, path), domain) for path, domain in space.domains.items())
    assert all(value_at(point, path) == value for path, value in space.fixed.items())
    assert space.sample(Random(seed)) == point


@settings(deadline=None)
@given(SPACES)
def test_a_grid_is_exactly_the_product_of_its_axes(space: Space) -> None:
    axes = [domain.grid for domain in space.domains.values()]
    if space.grid_size <= 2000:
        values = [tuple(space.searched(point).values()) for point in space.grid]
        assert values == list(itertools.product(*axes))
        assert len(values) == space.grid_size


@settings(deadline=None)
@given(SPACES)
def test_all_corners_and_a_sample_are_tried_the_same_ones_every_time(space: Space) -> None:
    corners = list(itertools.product(*(domain.ends for domain in space.domains.values())))
    tried = list(space.tried())
    assert tried == list(space.tried())
    assert len(tried) == min(len(corners), CORNERS) + (SAMPLES if space.domains else 0)
    for point in tried[: min(len(corners), CORNERS)]:
        assert tuple(space.searched(point).values()) in corners


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
    space = space_of({"x": given_range})
    assert [point["x"] for point in space.grid] == expected


def test_the_last_name_of_a_grid_changes_fastest_whatever_the_order_of_the_file() -> None:
    two = {"type": "int", "minval": 1, "maxval": 2, "count": 2}
    space = space_of({"b": two, "a": {"c": two}})
    assert space.grid == [{"a": {"c": c}, "b": b} for c in (1, 2) for b in (1, 2)]


def test_both_bounds_of_an_integer_are_drawn() -> None:
    space = space_of({"x": {"type": "int", "minval": 3, "maxval": 5}})
    assert {space.sample(Random(seed))["x"] for seed in range(50)} == {3, 4, 5}


def test_a_seed_draws_the_same_point_in_every_version() -> None:
    """Else a search that is resumed by a newer version would draw other trials."""
    space = space_of(
        {
            "a": {"type": "int", "minval": 1, "maxval": 100},
            "b": {"c": {"type": "log", "minval": -3, "maxval": 0, "base": 10}, "d": 7},
            "e": {"type": "categorical", "vals": ["x", "y", "z"]},
            "f": {"type": "double", "minval": 0.0, "maxval": 1.0},
        }
    )
    assert space.sample(Random(3)) == {
        "a": 31,
        "b": {"c": 0.05996843730681822, "d": 7},
        "e": "x",
        "f": 0.36995516654807925,
    }


def test_constants_are_unwrapped_at_every_depth_and_empty_groups_stay() -> None:
    given_values = {
        "global_batch_size": {"type": "const", "val": 8},
        "model": {"layers": {"type": "const", "val": 2}, "kernel": {"ard": True}},
        "natural_gradient": {"layers": {"type": "const", "val": [0, 1]}},
        "adam": {},
    }
    assert space_of(given_values).constants == {
        "global_batch_size": 8,
        "model": {"layers": 2, "kernel": {"ard": True}},
        "natural_gradient": {"layers": [0, 1]},
        "adam": {},
    }


def test_what_is_searched_is_named_by_its_path() -> None:
    space = space_of({"model": {"layers": {"type": "int", "minval": 1, "maxval": 3}, "x": 2}})
    assert space.domains == {("model", "layers"): Int(type="int", minval=1, maxval=3)}
    assert space.searched({"model": {"layers": 3, "x": 2}}) == {"model.layers": 3}
