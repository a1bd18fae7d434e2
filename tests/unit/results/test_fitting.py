from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import natdgp
from natdgp.data.arrays import as_table
from natdgp.data.table import DataError
from natdgp.results import fitting
from natdgp.results.fitting import fit
from natdgp.results.trained import TrainedModel
from natdgp.settings.problems import SettingsError
from natdgp.training.callbacks import build_callbacks
from natdgp.training.loop import Loop, Metrics, Plan
from natdgp.training.task import Task
from tests.conftest import FloatArray

pytestmark = [
    pytest.mark.usefixtures("eager"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config"),
]

Rows = tuple[FloatArray, FloatArray]
SHALLOW: Any = {"layers": 1, "inducing_points": 8}


@pytest.fixture
def rows(waves: Rows) -> Rows:
    X, Y = waves
    return X[:60], 10 * Y[:60, 0] + 3


def _fit(rows: Any, *args: Any, **settings: Any) -> TrainedModel:
    return fit(rows, *args, **{"steps": 4, "progress": False, "model": SHALLOW, **settings})


def _assert_equal(one: TrainedModel, other: TrainedModel) -> None:
    for ours, theirs in zip(one.parameters, other.parameters, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class _Nobody:
    """A driver that keeps nothing."""

    def status(self, status: str) -> None: ...
    def training(self, step: int, metrics: Metrics) -> None: ...
    def validation(self, step: int, metrics: Metrics) -> None: ...
    def save(self, step: int, state: Mapping[str, Any]) -> None: ...
    def wants_to_end(self) -> bool:
        return False


def test_it_learns(rows: Rows) -> None:
    X, y = rows
    gamma = {"gamma": 1.0}  # one step is the best there is for the first hyperparameters
    model = _fit(rows, natural_gradient=gamma, model={"layers": 1, "inducing_points": 40})
    assert model.evaluate(X, y)["rmse"] < 0.5 * y.std()
    assert [one["step"] for one in model.history] == [1, 2, 3, 4]


def test_its_parameters_are_those_of_the_engines_loop(rows: Rows) -> None:
    model = _fit(rows, seed=3)
    assert min(model.history, key=lambda one: one["val_nlpd"])["step"] == 4, "the best is the last"
    task = Task(model.record.settings, seed=3, table=as_table(rows))
    engine = task.compiled_model()
    callbacks = build_callbacks(task.settings, None)
    Loop(engine, task.training_data, task.validation_data(), Plan(4), _Nobody(), callbacks).run()
    _assert_equal(model, TrainedModel(engine, model.record))


def test_equal_calls_give_equal_bits(rows: Rows) -> None:
    tf.config.run_functions_eagerly(False)  # as users run it
    deep = {"layers": 2, "inducing_points": 8}
    one, again = (_fit(rows, model=deep, steps=20) for _ in range(2))
    _assert_equal(one, again)
    assert one.history == again.history


def test_the_parameters_of_the_best_validation_are_kept_and_training_stops(
    rows: Rows,
) -> None:
    X, y = rows
    upside_down = (X, 6 - y)  # the better the model, the worse it predicts these
    model = _fit(
        rows,
        validation=upside_down,
        steps=20,
        early_stopping={"patience": 2},
        natural_gradient={"gamma": 0.5},
    )
    assert [one["step"] for one in model.history] == [1, 2, 3]
    assert model.evaluate(*upside_down)["nlpd"] == pytest.approx(
        model.history[0]["val_nlpd"], rel=1e-12
    )


def test_all_rows_may_train_and_the_bound_judges(rows: Rows) -> None:
    model = _fit(rows, validation=None)
    early = model.record.settings.early_stopping
    assert model.record.task.num_data == 60
    assert early is not None
    assert early.monitor == "val_loss"
    assert model.evaluate(*rows)["loss"] == pytest.approx(
        min(one["val_loss"] for one in model.history), rel=1e-12
    )


@pytest.mark.parametrize(
    ("validation", "test", "num_data"),
    [
        (0.2, 0.3, 30),
        (0.2, "rows", 48),
        ("rows", 0.25, 45),
        ("rows", "rows", 60),
        (None, 0.25, 45),
    ],
)
def test_rows_are_held_out_by_share_or_given(
    rows: Rows, validation: Any, test: Any, num_data: int
) -> None:
    X, y = rows
    table = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": y})
    others = table[:7].assign(another="text")
    validation, test = (others if one == "rows" else one for one in (validation, test))
    model = _fit(table, "y", validation=validation, test=test, steps=1)
    assert model.features == ("a", "b")
    assert model.record.task.num_data == num_data
    assert model.test_figures is not None
    if test is others:
        assert model.test_figures == model.evaluate(others)


def test_a_file_is_divided_as_an_experiment_file_divides_it(rows: Rows, tmp_path: Path) -> None:
    X, y = rows
    path = tmp_path / "rows.csv"
    pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": y}).to_csv(path, index=False)
    model = _fit(path, "y", validation=0.2, test=0.1, steps=1)
    again = Task(model.record.settings, seed=0)  # which reads the file
    assert again.record.fingerprint == model.record.task.fingerprint


def test_a_folder_keeps_the_validations_and_the_best_so_far(rows: Rows, tmp_path: Path) -> None:
    model = _fit(rows, out=tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == model.history
    assert len([*(tmp_path / "run" / "checkpoints").iterdir()]) == 1
    _assert_equal(natdgp.load(tmp_path / "run"), model)
    with pytest.raises(FileExistsError, match="choose another folder"):
        _fit(rows, out=tmp_path / "run")


def test_an_interrupt_gives_the_best_so_far_or_is_passed_on(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(after: int) -> None:
        def training(self: Any, step: int, metrics: Metrics) -> None:
            if step > after:
                raise KeyboardInterrupt

        monkeypatch.setattr(fitting._BestKeeper, "training", training)

    interrupt(after=2)
    with pytest.warns(
        UserWarning, match=r"interrupted after step 3 of 4: .* step [12], the best of"
    ):
        model = _fit(rows)
    assert [one["step"] for one in model.history] == [1, 2]
    assert model.predict(rows[0]).mean.shape == (60, 1)
    interrupt(after=0)
    with pytest.raises(KeyboardInterrupt):
        _fit(rows)


@pytest.mark.parametrize("progress", [False, True])
def test_it_says_how_far_it_is_if_asked(
    rows: Rows, progress: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    _fit(rows, progress=progress)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("4/4" in err and "val_nlpd" in err) if progress else err == ""


def test_what_the_rows_allow_is_chosen(rows: Rows) -> None:
    X, y = rows
    few = (np.round(X[:, :1]), y)
    distinct = len(np.unique(few[0]))
    model = _fit(few, validation=None, model={"layers": 2, "inducing_points": [99, 3]}, steps=1)
    assert model.record.settings.model.inducing_points == (distinct, 3)
    assert model.record.settings.global_batch_size == 60
    assert _fit(rows, global_batch_size=np.int64(7)).record.settings.global_batch_size == 7


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"modle": {}}, SettingsError, "did you mean model"),
        ({"model": {"layers": 0}}, SettingsError, r"hyperparameters\.model\.layers"),
        ({"validation": 1.5}, SettingsError, r"data\.split\.validation"),
        ({"validation": 0}, DataError, "no validation rows"),
        ({"steps": 0}, ValueError, "steps is 0; give a whole number, 1 or more"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"features": ["a", "b"]}, DataError, "X has 3 columns, named a, b"),
    ],
)
def test_what_cannot_be_is_told(
    rows: Rows, given: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _fit(rows, **given)
