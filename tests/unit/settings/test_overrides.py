from __future__ import annotations

from typing import Any

import pytest

from natdgp.settings import MISSING, Problem, SettingsError
from natdgp.settings.document import parse
from natdgp.settings.overrides import apply_override

TEXT = "hyperparameters:\n  model:\n    layers: {type: int, minval: 1}\n    dtype: float64\n"


@pytest.mark.parametrize(
    ("override", "model"),
    [
        ("hyperparameters.model.layers=3", {"layers": 3, "dtype": "float64"}),
        ("hyperparameters.model={layers: 1}", {"layers": 1}),
        ("hyperparameters.model.dtype=", {"layers": {"type": "int", "minval": 1}, "dtype": None}),
        (
            "hyperparameters.model.dtype.x=[1]",
            {"layers": {"type": "int", "minval": 1}, "dtype": {"x": [1]}},
        ),
    ],
)
def test_an_override_replaces_what_stood_at_its_path(override: str, model: Any) -> None:
    assert apply_override(parse(TEXT), override).values["hyperparameters"]["model"] == model


def test_an_override_makes_groups_that_are_not_there() -> None:
    values = apply_override(parse(TEXT), "environment.image=a=b").values
    assert values["environment"] == {"image": "a=b"}


def test_an_override_leaves_the_document_as_it_was() -> None:
    document = parse(TEXT)
    apply_override(document, "hyperparameters.model.layers=3")
    assert document.values == parse(TEXT).values


def test_a_problem_with_an_override_names_it_in_place_of_file_and_line() -> None:
    document = apply_override(parse(TEXT, "a.yaml"), "hyperparameters.model.layers=0")
    layers = document.locate(Problem("hyperparameters.model.layers", 0, "wrong", "mend it"))
    dtype = document.locate(Problem("hyperparameters.model.dtype", 0, "wrong", "mend it"))
    inside = document.locate(Problem("hyperparameters.model.layers.minval", 0, "wrong", "mend it"))
    assert (layers.file, layers.line) == ("--set hyperparameters.model.layers=0", None)
    assert (inside.file, inside.line) == (layers.file, None)
    assert (dtype.file, dtype.line) == ("a.yaml", 4)


@pytest.mark.parametrize(
    ("override", "path", "fragment"),
    [
        ("layers", "", "must be path=value"),
        ("=3", "", "must be path=value"),
        ("a..b=3", "", "must be path=value"),
        ("name=[1", "name", "not valid YAML"),
        ("name=2020-01-01", "name", "kind timestamp is not allowed"),
    ],
)
def test_a_malformed_override_is_refused(override: str, path: str, fragment: str) -> None:
    with pytest.raises(SettingsError) as caught:
        apply_override(parse(TEXT), override)
    (problem,) = caught.value.problems
    assert (problem.path, problem.file, problem.received) == (path, f"--set {override}", MISSING)
    assert fragment in problem.message
