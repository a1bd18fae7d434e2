from __future__ import annotations

from typing import Any

import pytest

from natdgp.settings import SettingsError, constant_hyperparameters


def test_constants_are_unwrapped_at_every_depth() -> None:
    given = {
        "global_batch_size": {"type": "const", "val": 8},
        "model": {"layers": {"type": "const", "val": 2}, "kernel": {"ard": True}},
        "natural_gradient": {"layers": {"type": "const", "val": [0, 1]}},
    }
    assert constant_hyperparameters(given) == {
        "global_batch_size": 8,
        "model": {"layers": 2, "kernel": {"ard": True}},
        "natural_gradient": {"layers": [0, 1]},
    }


@pytest.mark.parametrize("kind", ["int", "double", "log", "categorical"])
def test_what_is_searched_over_is_named_with_the_option_that_fixes_it(kind: str) -> None:
    with pytest.raises(SettingsError) as caught:
        constant_hyperparameters({"model": {"layers": {"type": kind, "minval": 1, "maxval": 4}}})
    (problem,) = caught.value.problems
    assert problem.path == "hyperparameters.model.layers"
    assert "this file searches over hyperparameters.model.layers" in problem.message
    assert "--set hyperparameters.model.layers=VALUE" in problem.remedy


def test_all_that_is_searched_over_is_named_together() -> None:
    searched = {"type": "int", "minval": 1, "maxval": 4}
    with pytest.raises(SettingsError) as caught:
        constant_hyperparameters({"global_batch_size": searched, "model": {"layers": searched}})
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("given", "path", "fragment"),
    [
        ({"type": "cosnt", "val": 3}, "hyperparameters.x.type", "did you mean const?"),
        ({"type": [1], "val": 3}, "hyperparameters.x.type", "must be one of const, int"),
        ({"type": "const"}, "hyperparameters.x.val", "required"),
    ],
)
def test_a_malformed_hyperparameter_is_refused(given: Any, path: str, fragment: str) -> None:
    with pytest.raises(SettingsError) as caught:
        constant_hyperparameters({"x": given})
    (problem,) = caught.value.problems
    assert problem.path == path
    assert fragment in str(problem)
