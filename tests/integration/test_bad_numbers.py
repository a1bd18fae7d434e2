"""Data and settings that make numbers go wrong: each trains, or is refused in words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from natdgp.data.table import DataError
from natdgp.run.local_training import train
from natdgp.run.run_session import new_run
from natdgp.settings.experiment import read_experiment
from natdgp.training.diagnosis import BadBatch, TrainingFailure
from tests.conftest import FloatArray
from tests.integration.breaking import spoiling_trial
from tests.integration.command import finish, start
from tests.integration.conftest import Bench, Watcher

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(40, 2))
Y = X[:, 0] + 0.1 * GENERATOR.normal(size=40)


def _with(values: FloatArray, place: Any, value: float) -> FloatArray:
    changed = values.copy()
    changed[place] = value
    return changed


FEWER = {"model": {"layers": 1, "inducing_points": 10}}
ONE = {"model": {"layers": 1, "inducing_points": 1}}
ONE_EACH = {"model": {"layers": 2, "inducing_points": 1}}
SINGLE = {"model": {"layers": 1, "inducing_points": 3, "dtype": "float32"}}
LARGE = {"global_batch_size": 100}
STUDENT_T = {"model": {"layers": 1, "inducing_points": 3, "likelihood": {"name": "student_t"}}}
ENORMOUS = {"global_batch_size": 2**31 - 1, "model": {"inducing_points": 10**5}}
EXACT = {"natural_gradient": {"gamma": 5.0, "positive_definite": "exact"}, **STUDENT_T}
HUGE_RATE = {"adam": {"learning_rate": 1e300}}
DIVIDED = {"parts": ["train"] * 30 + ["validation"] * 5 + ["test"] * 5}
VALIDATED = 30  # the first row that is

TRAIN = [
    pytest.param(X, Y * 1e30, {**ONE, **LARGE}, id="targets of 1e30, M = 1, batch > N"),
    pytest.param(
        _with(X, (VALIDATED, 1), 1e11),
        _with(Y, VALIDATED + 1, 1e11),
        {**SINGLE, **DIVIDED},
        id="one validation feature and target of 1e11 in float32",
    ),
    *(
        pytest.param(*case, id=name, marks=pytest.mark.slow)
        for name, case in {
            "targets of 1e30": (X, Y * 1e30, {}),
            "targets of 1e30 in float32": (X, Y * 1e30, SINGLE),
            "one target of 1e30": (X, _with(Y, slice(0, 9), 1e30), {}),
            "features of 1e30": (X * 1e30, Y, {}),
            "one feature of 1e30": (_with(X, (slice(0, 9), 1), 1e30), Y, {}),
            "duplicate rows": (np.tile(X[:4], (10, 1)), np.tile(Y[:4], 10), {}),
            "duplicate inputs": (np.tile(X[:4], (10, 1)), Y, {}),
            "a batch larger than the data": (X, Y, LARGE),
            "batches of one row": (X, Y, {"global_batch_size": 1}),
            "one inducing point": (X, Y, ONE),
            "one inducing point a layer": (X, Y, ONE_EACH),
            "one validation feature and target of 1e69": (
                _with(X, (VALIDATED, 1), 1e69),
                _with(Y, VALIDATED + 1, 1e69),
                {**ONE_EACH, **DIVIDED},
            ),
            "one validation feature of 1e69 in a Student-t's": (
                _with(X, (VALIDATED, 1), 1e69),
                _with(Y, VALIDATED + 1, 1e69),
                {**STUDENT_T, **DIVIDED},
            ),
        }.items()
    ),
]

REFUSED: dict[str, tuple[Any, ...]] = {
    "NaN in a feature": (
        _with(X, (3, 1), math.nan),
        Y,
        {},
        DataError,
        "column 'x1', line 5: 'NaN'",
    ),
    "infinite target": (X, _with(Y, 5, math.inf), {}, DataError, "column 'y', line 7: 'inf' is"),
    "targets of 1e300": (X, Y * 1e300, {}, DataError, "target 'y' has no usable spread"),
    "constant targets": (X, Y * 0 + 0.1, {}, DataError, "spread (from 0.1 to 0.1); there is noth"),
    "constant feature": (_with(X, (slice(None), 0), 7.0), Y, {}, DataError, "feature 'x0' has no"),
    "nearly constant targets": (X, 1e8 + 1e-9 * Y, {}, DataError, "target 'y' has no usable sprea"),
    "fewer rows than M": (
        X[:6],
        Y[:6],
        FEWER,
        TrainingFailure,
        "only 4 distinct rows; lower hyper",
    ),
    "one validation target of 1e300": (
        X,
        _with(Y, VALIDATED, 1e300),
        DIVIDED,
        DataError,
        "target 'y', row 31 (validation): 1e+300 lies so far from the training rows' mean",
    ),
    "one row": (X[:1], Y[:1], {}, DataError, "no train rows among the 1 in use"),
    "one training row": (X[:3], Y[:3], {}, DataError, "there is 1 training row, over which noth"),
    "an exact step that is too long": (
        X,
        Y,
        EXACT,
        TrainingFailure,
        "the step after step 1 failed: natural-gradient step on layer_0_q_sqrt: the step is too "
        "long, its new covariance is not positive definite; shorten gamma, set max_kl, or use "
        'positive_definite="fallback"',
    ),
    "a batch beyond all memory": (X, Y, ENORMOUS, TrainingFailure, "a step would take at least"),
    "a learning rate of 1e300": (X, Y, HUGE_RATE, TrainingFailure, "layer_0 has non-finite kernel"),
}

Tables = Callable[[FloatArray, FloatArray, dict[str, Any]], dict[str, Any]]


@pytest.fixture
def table(tmp_path: Path, small_experiment: dict[str, Any]) -> Tables:
    """An experiment on such a table, of 6 steps and 3 validations."""

    def make(X: FloatArray, y: FloatArray, changes: dict[str, Any]) -> dict[str, Any]:
        path = tmp_path / "table.csv"
        columns = {"x0": X[:, 0], "x1": X[:, 1], "y": y}
        small_experiment["data"] = {"source": "csv", "path": str(path), "target": ["y"]}
        changes = dict(changes)
        if parts := changes.pop("parts", None):
            columns["part"] = parts
            small_experiment["data"]["split"] = {"column": "part"}
        pl.DataFrame(columns).write_csv(path)
        small_experiment["searcher"]["max_length"] = {"batches": 6}
        small_experiment["min_validation_period"] = {"batches": 2}
        hyperparameters = small_experiment["hyperparameters"]
        hyperparameters["global_batch_size"] = 8
        hyperparameters["model"] = {"layers": 1, "inducing_points": 3}
        hyperparameters.update(changes)
        return small_experiment

    return make


@pytest.mark.parametrize(("X", "y", "changes"), TRAIN)
def test_it_trains_and_every_figure_is_finite(
    bench: Bench, table: Tables, X: FloatArray, y: FloatArray, changes: dict[str, Any]
) -> None:
    folder = bench.new(table(X, y, changes))
    assert bench.go(folder).steps == 6
    validations = bench.metrics(folder, "validation")
    assert list(validations) == [2, 4, 6]
    for figures in (*validations.values(), *bench.metrics(folder, "training").values()):
        assert all(map(math.isfinite, figures.values())), figures


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_words_and_reports_nothing_that_is_not_finite(
    bench: Bench, table: Tables, name: str
) -> None:
    X, y, changes, error, words = REFUSED[name]
    folder = bench.new(table(X, y, changes))
    with pytest.raises(error) as raised:
        bench.go(folder)
    assert words in str(raised.value)
    for figures in bench.metrics(folder, "validation").values():
        assert all(map(math.isfinite, figures.values())), figures


def test_values_that_spoil_in_the_middle_of_a_run_are_refused_when_it_goes_on(
    bench: Bench, table: Tables
) -> None:
    """A run reads its data once; a file that changes meets it when it is resumed."""
    config = table(X, Y, {})
    config["searcher"]["max_length"] = {"batches": 2}
    folder = bench.new(config)
    bench.go(folder)
    table(_with(X, (7, 0), math.nan), Y, {})
    with pytest.raises(DataError, match="column 'x0', line 9: 'NaN' is missing or not finite"):
        bench.go(folder)


SPOILT: dict[str, tuple[tuple[str, str, str, int], str, str]] = {
    "NaN in features": (
        ("build_training_data_loader", "inputs", "nan", 4),
        "loss is nan in the step after step 4: ",
        "inputs[3, 0] nan",
    ),
    "infinite targets": (
        ("build_training_data_loader", "targets", "inf", 4),
        "loss is inf in the step after step 4: ",
        "targets[3, 0] inf",
    ),
    "NaN in validation": (
        ("build_validation_data_loader", "targets", "nan", 1),
        "",  # whichever figure comes first
        "targets[3, 0] nan",
    ),
}


DATA = {
    "build_training_data_loader": "the training data",
    "build_validation_data_loader": "the validation data",
}


@pytest.fixture
def spoilt(
    tmp_path: Path, small_experiment: dict[str, Any], write_experiment: Callable[..., Path]
) -> Callable[[tuple[str, str, str, int]], Path]:
    """The file of an experiment whose trial has such a loader."""

    def make(how: tuple[str, str, str, int]) -> Path:
        module = "_".join(("spoilt", *how[:3]))
        (tmp_path / f"{module}.py").write_text(spoiling_trial(*how))
        small_experiment["entrypoint"] = small_experiment["entrypoint"].replace(
            "trials.deep_gp:DeepGPTrial", f"{module}:Mine"
        )
        small_experiment["hyperparameters"]["model"] = {"layers": 1, "inducing_points": 3}
        return write_experiment(small_experiment)

    return make


@pytest.mark.parametrize("name", SPOILT)
def test_a_loader_of_a_users_own_that_spoils_in_the_middle_of_a_run_is_named(
    spoilt: Callable[[tuple[str, str, str, int]], Path], tmp_path: Path, name: str
) -> None:
    how, figure, words = SPOILT[name]
    experiment = read_experiment(spoilt(how))
    folder = new_run(experiment, tmp_path, tmp_path / "run")
    with pytest.raises(
        BadBatch, match=re.escape(f"{figure}{DATA[how[0]]} gave a batch with {words}")
    ):
        train(experiment, folder, Watcher())
    assert [checkpoint.steps for checkpoint in folder.checkpoints()] == ([4] if figure else [])


@pytest.mark.slow
def test_the_data_of_one_rank_of_two_end_both_and_are_told_once(
    spoilt: Callable[[tuple[str, str, str, int]], Path], tmp_path: Path
) -> None:
    how, figure, words = SPOILT["NaN in features"]
    options = ("--slots", "2", "--out", tmp_path / "run")
    status, out, err = finish(start(spoilt(how), *options, cwd=tmp_path))
    assert status == 2
    assert f"{figure}{DATA[how[0]]} gave a batch with {words}" in err
    assert err.count("gave a batch") == 1
    assert "Traceback" not in out + err
