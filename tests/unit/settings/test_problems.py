from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from natdgp.settings import MISSING, Problem, SettingsError
from natdgp.settings.schema import Settings


def problems_of(hyperparameters: dict[str, Any], **data: Any) -> dict[str, Problem]:
    given = {"global_batch_size": 8, **hyperparameters}
    with pytest.raises(SettingsError) as caught:
        Settings.read(given, data or {"source": "flights"})
    return {problem.path: problem for problem in caught.value.problems}


def test_a_problem_reads_as_place_path_value_rule_and_remedy() -> None:
    problem = Problem("searcher.metric", "val_nlp", "must be one of val_nlpd", "did you mean it?")
    assert str(replace(problem, file="const.yaml", line=41)) == (
        "const.yaml:41: searcher.metric: received 'val_nlp'; must be one of val_nlpd\n"
        "    did you mean it?"
    )


def test_a_missing_value_is_not_shown_as_received() -> None:
    assert "received" not in str(Problem("name", MISSING, "required", "add it"))


def test_a_long_value_is_shortened() -> None:
    assert len(str(Problem("name", list(range(10_000)), "must be text", "change it"))) < 200


def test_an_error_lists_all_its_problems_under_a_count() -> None:
    one, two = Problem("a", 1, "wrong", "mend a"), Problem("b", 2, "wrong too", "mend b")
    text = str(SettingsError([one, two]))
    assert text.startswith("2 problems in the experiment's settings")
    assert str(one) in text
    assert str(two) in text
    assert str(SettingsError([one])).startswith("1 problem in")


def test_an_error_survives_a_process_boundary() -> None:
    error = SettingsError.single("a", MISSING, "required", "add it")
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


@pytest.mark.parametrize(
    ("hyperparameters", "path", "received", "fragments"),
    [
        (
            {"model": {"layrs": 3}},
            "hyperparameters.model.layrs",
            3,
            ["no field layrs", "layers, inducing_points", "did you mean layers?"],
        ),
        (
            {"model": {"xyz": 3}},
            "hyperparameters.model.xyz",
            3,
            ["no field xyz", "remove it"],
        ),
        (
            {"modle": {}},
            "hyperparameters.modle",
            {},
            ["allowed here: global_batch_size, model,", "did you mean model?"],
        ),
        (
            {"global_batch_size": 1.5},
            "hyperparameters.global_batch_size",
            1.5,
            ["must be a whole number above 0", "set another value"],
        ),
        (
            {"global_batch_size": True},
            "hyperparameters.global_batch_size",
            True,
            ["must be a whole number above 0"],
        ),
        (
            {"model": {"layers": 0}},
            "hyperparameters.model.layers",
            0,
            ["must be a whole number above 0", "remove the field for the default, 2"],
        ),
        (
            {"model": {"kernel": {"name": "matern53"}}},
            "hyperparameters.model.kernel.name",
            "matern53",
            ["one of squared_exponential, matern32, matern52", "did you mean matern52?"],
        ),
        (
            {"model": {"kernel": 3}},
            "hyperparameters.model.kernel",
            3,
            ["must be a group of fields (name, ard, variance, lengthscale)"],
        ),
        (
            {"model": {"likelihood": {"name": "student_t", "scale": -1}}},
            "hyperparameters.model.likelihood.scale",
            -1,
            ["must be a number above 1e-06", "0.3"],
        ),
        (
            {"model": {"likelihood": {"name": "gaussian", "scale": 1}}},
            "hyperparameters.model.likelihood.scale",
            1,
            ["allowed here: name, variance"],
        ),
        (
            {"model": {"likelihood": {"name": "gausian"}}},
            "hyperparameters.model.likelihood.name",
            "gausian",
            ["must be one of gaussian, student_t", "did you mean gaussian?"],
        ),
        (
            {"model": {"likelihood": {"variance": 1}}},
            "hyperparameters.model.likelihood.name",
            MISSING,
            ["required", "gaussian, student_t", "add `name:` to hyperparameters.model.likelihood"],
        ),
        (
            {"model": {"likelihood": "gaussian"}},
            "hyperparameters.model.likelihood",
            "gaussian",
            ["must be a group of fields"],
        ),
        (
            {"adam": {"schedule": {"name": "cosine"}}},
            "hyperparameters.adam.schedule.decay_steps",
            MISSING,
            ["required; must be a whole number above 0", "add `decay_steps:`"],
        ),
        (
            {"adam": {"learning_rate": True}},
            "hyperparameters.adam.learning_rate",
            True,
            ["must be a number above 0"],
        ),
        (
            {"adam": {"learning_rate": float("inf")}},
            "hyperparameters.adam.learning_rate",
            float("inf"),
            ["must be a number above 0"],
        ),
        (
            {"model": {"inducing_points": "many"}},
            "hyperparameters.model.inducing_points",
            "many",
            ["a whole number above 0, or a list with each item a whole number above 0", "100"],
        ),
        (
            {"model": {"inducing_points": [100, 0]}},
            "hyperparameters.model.inducing_points.1",
            0,
            ["must be a whole number above 0"],
        ),
        (
            {"natural_gradient": {"layers": "lst"}},
            "hyperparameters.natural_gradient.layers",
            "lst",
            ["one of all, last, none, or a list", "did you mean last?"],
        ),
        (
            {"early_stopping": {"monitor": "val_nlp"}},
            "hyperparameters.early_stopping.monitor",
            "val_nlp",
            ["val_rmse", "did you mean val_nlpd?"],
        ),
        (
            {"reduce_lr_on_plateau": []},
            "hyperparameters.reduce_lr_on_plateau",
            [],
            ["must be a group of fields (monitor,"],
        ),
        ({3: 4}, "hyperparameters.3", 3, ["no field 3"]),
        # What binds several fields names their group.
        (
            {"model": {"inducing_points": [100, 50, 25]}},
            "hyperparameters.model",
            MISSING,
            ["lists 3 numbers for 2 layers", "give one per layer"],
        ),
        (
            {"natural_gradient": {"ramp_steps": 10}},
            "hyperparameters.natural_gradient",
            MISSING,
            ["a ramp needs both", "give both or neither"],
        ),
        (
            {"natural_gradient": {"layers": [2]}},
            "hyperparameters",
            MISSING,
            ["model.layers is 2", "from 0 to 1"],
        ),
        (
            {
                "adam": {"schedule": {"name": "cosine", "decay_steps": 9}},
                "reduce_lr_on_plateau": {},
            },
            "hyperparameters",
            MISSING,
            ["would both set the learning rate", "drop one of them"],
        ),
        ({"data": {}}, "hyperparameters.data", {}, ["section of its own", "top level"]),
    ],
)
def test_a_wrong_hyperparameter_is_named_with_value_rule_and_remedy(
    hyperparameters: dict[str, Any], path: str, received: object, fragments: list[str]
) -> None:
    found = problems_of(hyperparameters)
    assert list(found) == [path]
    assert found[path].received == received
    for fragment in fragments:
        assert fragment in str(found[path])


@pytest.mark.parametrize(
    ("data", "path", "fragment"),
    [
        ({"source": "flight"}, "data.source", "did you mean flights?"),
        ({"rows": 3}, "data.source", "required; must be one of flights, csv, parquet"),
        ({"source": "flights", "rows": "all"}, "data.rows", "must be a whole number above 0"),
        ({"source": "flights", "path": "a"}, "data.path", "no field path"),
        ({"source": "flights", "features": []}, "data.features", "a list of at least 1"),
        ({"source": "flights", "features": [3]}, "data.features.0", "must be text"),
        ({"source": "csv", "target": ["y"]}, "data.path", "required; must be text"),
        ({"source": "flights", "split": {"test": 1}}, "data.split.test", "below 1"),
        (
            {"source": "flights", "split": {"validation": 0.5, "test": 0.5}},
            "data.split",
            "leaves no training rows",
        ),
        (
            {"source": "csv", "path": "a", "target": ["y"], "features": ["y"]},
            "data",
            "named twice",
        ),
    ],
)
def test_a_wrong_field_of_the_data_lies_under_data(
    data: dict[str, Any], path: str, fragment: str
) -> None:
    found = problems_of({}, **data)
    assert list(found) == [path]
    assert fragment in str(found[path])


def test_all_wrong_fields_are_reported_together_without_the_validators_own_words() -> None:
    found = problems_of(
        {"model": {"layers": "two", "dtype": "float16"}, "adam": 3}, source="flights", rows=-1
    )
    assert set(found) == {
        "hyperparameters.model.layers",
        "hyperparameters.model.dtype",
        "hyperparameters.adam",
        "data.rows",
    }
    for problem in found.values():
        assert problem.message
        assert problem.remedy
        for jargon in ("Input should", "pydantic", "http", "discriminator", "literal"):
            assert jargon not in str(problem)
