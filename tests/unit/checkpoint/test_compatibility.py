from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from natdgp.checkpoint.compatibility import misfits, other_data
from natdgp.checkpoint.record import ModelRecord, TaskRecord
from natdgp.data.scaling import Scaling
from natdgp.settings.schema import Settings

TASK = TaskRecord(
    90, ("a", "b"), ("y",), Scaling(np.zeros(2), np.ones(2), np.zeros(1), np.ones(1)), "one"
)


def _record(task: TaskRecord = TASK, **hyperparameters: Any) -> ModelRecord:
    settings = Settings.read(
        {"global_batch_size": 8, **hyperparameters},
        {"source": "csv", "path": "t.csv", "target": ["y"]},
    )
    return ModelRecord(settings, task, seed=0)


STUDENT = {"name": "student_t", "degrees_of_freedom": 5.0}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"dtype": "float32"}, ["hyperparameters.model.dtype is float32, but float64"]),
        (
            {"layers": 3},
            [
                "hyperparameters.model.layers is 3, but 2",
                "hyperparameters.model.inducing_points is 100, 100, 100, but 100, 100",
                "what natural gradients train (layers) is 2, but 1",
            ],
        ),
        (
            {"inducing_points": [100, 7]},
            ["hyperparameters.model.inducing_points is 100, 7, but 100, 100"],
        ),
        ({"hidden_width": 4}, ["hyperparameters.model.hidden_width is 4, but not set"]),
        ({"kernel": {"ard": False}}, ["hyperparameters.model.kernel.ard is False, but True"]),
        (
            {"kernel": {"name": "matern32"}},
            ["hyperparameters.model.kernel.name is matern32, but squared_exponential"],
        ),
        (
            {"train_inducing_points": False},
            ["hyperparameters.model.train_inducing_points is False, but True"],
        ),
        (
            {"likelihood": STUDENT},
            [
                "hyperparameters.model.likelihood.name is student_t, but gaussian",
                "hyperparameters.model.likelihood.degrees_of_freedom is 5.0, but not set",
            ],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_field_that_does_not_fit_is_named(model: dict[str, Any], expected: list[str]) -> None:
    own = _record(model=model)
    assert misfits(_record(), own) == [f"{one} in the checkpoint" for one in expected]
    assert misfits(own, own) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"features": ("a", "c")}, "data.features is a, c, but a, b in the checkpoint"),
        ({"targets": ("z",)}, "data.target is z, but y in the checkpoint"),
    ],
)
def test_other_columns_are_named(changed: dict[str, Any], expected: str) -> None:
    assert misfits(_record(), _record(replace(TASK, **changed))) == [expected]


def test_another_structure_is_named_where_both_are_known() -> None:
    one, other = ({"likelihood": {"class": "StudentT", "df": df}} for df in (3.0, 4.0))
    saved, own = replace(_record(), structure=one), replace(_record(), structure=other)
    assert misfits(saved, own) == ["likelihood.df is 4.0, but 3.0 in the checkpoint"]
    assert misfits(saved, _record()) == []


def test_what_adam_trains_is_named() -> None:
    own = _record(natural_gradient={"layers": "all"})
    assert misfits(_record(), own) == [
        "what natural gradients train (layers) is 0, 1, but 1 in the checkpoint"
    ]


def test_what_only_starts_or_samples_a_model_may_differ() -> None:
    own = _record(
        model={
            "inducing_points": [100, 100],
            "kernel": {"variance": 2.0, "lengthscale": 3.0},
            "likelihood": {"name": "gaussian", "variance": 0.3},
            "inner_q_sqrt_scale": 1e-3,
            "num_samples": 4,
        },
        natural_gradient={"gamma": 0.5},
        global_batch_size=16,
    )
    assert misfits(_record(), own) == []


def test_other_data_are_told_from_the_same() -> None:
    assert other_data(TASK, TASK) is None
    fewer, altered = replace(TASK, num_data=80, fingerprint="x"), replace(TASK, fingerprint="x")
    assert other_data(TASK, fewer) == "there were 90 training rows, and now there are 80"
    assert other_data(TASK, altered) == (
        "there are 90 training rows as before, but values in them changed"
    )
