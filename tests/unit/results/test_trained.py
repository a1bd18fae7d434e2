from __future__ import annotations

import functools
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpflow
import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from scipy import stats

from natdgp.checkpoint.checksums import FILE_NAME as LIST_NAME
from natdgp.checkpoint.checksums import (
    RECORD_NAME,
    WEIGHTS_NAME,
    DamagedCheckpoint,
    write_checksums,
)
from natdgp.checkpoint.record import ModelRecord, TaskRecord
from natdgp.checkpoint.structure import structure_of
from natdgp.checkpoint.weights import save_weights
from natdgp.data.prepare import Rows
from natdgp.data.scaling import Scaling
from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.deep_gp import DeepGP
from natdgp.results import trained as trained_module
from natdgp.results.trained import TrainedModel, load
from natdgp.settings.schema import Settings
from natdgp.training.assembly import build_training_model
from natdgp.training.model import DeepGPModel
from tests.conftest import FloatArray

FEATURES = ("a", "b", "c")
SCALING = Scaling(
    x_mean=np.array([1.0, -2.0, 30.0]),
    x_std=np.array([0.5, 2.0, 10.0]),
    y_mean=np.array([100.0]),
    y_std=np.array([7.0]),
)
LEVELS = (1e-6, 0.025, 0.3, 0.5, 0.975)


def _model(
    layers: int,
    likelihood: dict[str, Any] | None = None,
    *,
    dtype: str = "float64",
    batch_size: int = 8,
    num_samples: int = 5,
) -> TrainedModel:
    """A model with parameters at random, as if trained."""
    settings = Settings.read(
        {
            "global_batch_size": 8,
            "model": {
                "layers": layers,
                "inducing_points": 6,
                "likelihood": likelihood or {"name": "gaussian", "variance": 0.05},
                "dtype": dtype,
            },
            "evaluation": {"num_samples": num_samples, "batch_size": batch_size},
        },
        {"source": "flights"},
    )
    record = ModelRecord(settings, TaskRecord(50, FEATURES, ("y",), SCALING, ""), seed=3)
    generator = np.random.default_rng(0)
    X = generator.normal(size=(50, 3)).astype(dtype)
    model = build_training_model(settings, record.task.shape, SCALING.y_std, seed=3, X=X)
    for layer in model.deep_gp.f_layers:
        layer.q_mu.assign(generator.normal(size=layer.q_mu.shape))
        layer.q_sqrt.assign(0.5 * np.tril(generator.normal(size=layer.q_sqrt.shape)) + np.eye(6))
    return TrainedModel(model, record)


def _inputs(n: int = 20) -> FloatArray:
    scaled = np.random.default_rng(1).normal(size=(n, 3))
    return scaled * SCALING.x_std + SCALING.x_mean


def _parameters(trained: TrainedModel) -> list[FloatArray]:
    return [variable.numpy() for variable in trained.model.deep_gp.variables]


@pytest.fixture(scope="module")
def shallow() -> TrainedModel:
    return _model(1)


@pytest.fixture(scope="module")
def deep() -> TrainedModel:
    return _model(2)


def _posterior(trained: TrainedModel, X: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of f, standardised, of one layer: equations of a sparse variational GP."""
    (layer,) = trained.model.deep_gp.f_layers
    kernel = layer.kernel.kernel
    ell, variance = kernel.lengthscales.numpy(), float(kernel.variance.numpy())
    Z = layer.inducing_variable.inducing_variable.Z.numpy()

    def k(A: FloatArray, B: FloatArray) -> FloatArray:
        squares = np.square((A[:, None] - B[None]) / ell).sum(axis=-1)
        return np.asarray(variance * np.exp(-0.5 * squares))

    X = (X - SCALING.x_mean) / SCALING.x_std
    L = np.linalg.cholesky(k(Z, Z) + 1e-6 * np.eye(len(Z)))
    A = np.linalg.solve(L, k(Z, X))  # whitened: u = L v, q(v) = N(q_mu, q_sqrt q_sqrt^T)
    S = layer.q_sqrt.numpy()[0]
    mean = A.T @ layer.q_mu.numpy()
    var = variance - np.square(A).sum(axis=0) + np.square(S.T @ A).sum(axis=0)
    return mean, var[:, None]


def test_one_layer_predicts_as_worked_out_by_hand(shallow: TrainedModel) -> None:
    X = _inputs()
    mean, var = _posterior(shallow, X)
    std = 7.0 * np.sqrt(var + 0.05)
    prediction = shallow.predict(X, quantiles=LEVELS)
    # 1e-9: two ways through a Cholesky factor whose jitter is 1e-6
    np.testing.assert_allclose(prediction.mean, 7.0 * mean + 100.0, rtol=1e-9)
    np.testing.assert_allclose(prediction.std, std, rtol=1e-9)
    assert tuple(prediction.quantiles) == LEVELS
    for level, values in prediction.quantiles.items():
        np.testing.assert_allclose(
            stats.norm.cdf(values, prediction.mean, prediction.std), level, rtol=0, atol=1e-9
        )


def _mixture(trained: TrainedModel, X: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of f, [S, n, Q], under the noise of prediction."""
    X = SCALING.scale_x(X)
    mean, var = trained.model.deep_gp.predictive_marginals(tf.constant(X), 5)
    return mean.numpy(), var.numpy()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    "likelihood",
    [
        {"name": "gaussian", "variance": 0.05},
        {"name": "student_t", "scale": 0.2, "degrees_of_freedom": 3.0},
    ],
    ids=["gaussian", "student_t"],
)
def test_quantiles_invert_the_cdf_and_moments_are_the_mixtures(
    layers: int, likelihood: dict[str, Any]
) -> None:
    trained = _model(layers, likelihood)
    X = _inputs(4)
    prediction = trained.predict(X, quantiles=LEVELS)
    mean, var = _mixture(trained, X)
    noise = 0.05 if likelihood["name"] == "gaussian" else 0.2**2 * 3.0 / (3.0 - 2.0)
    second_moment = np.mean(np.square(mean) + var + noise, axis=0)
    np.testing.assert_allclose(prediction.mean, 7.0 * mean.mean(axis=0) + 100.0, rtol=1e-12)
    # 1e-9: the difference of two moments of size 1
    expected = 7.0 * np.sqrt(second_moment - np.square(mean.mean(axis=0)))
    np.testing.assert_allclose(prediction.std, expected, rtol=1e-9)
    for level, values in prediction.quantiles.items():
        cdf = trained.model.deep_gp.likelihood.cdf(mean, var, tf.constant((values - 100.0) / 7.0))
        np.testing.assert_allclose(cdf, level, rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [10, 1030])
def test_a_prediction_is_a_function_of_the_row(deep: TrainedModel, count: int) -> None:
    """Batches have 8 rows."""
    X = _inputs(count)
    among, alone, turned = deep.predict(X), deep.predict(X[-1:]), deep.predict(X[::-1])
    # 1e-12: products of matrices of another size sum in another order
    np.testing.assert_allclose(alone.mean[0], among.mean[-1], rtol=1e-12)
    np.testing.assert_allclose(alone.std[0], among.std[-1], rtol=1e-12)
    np.testing.assert_allclose(turned.mean[::-1], among.mean, rtol=1e-12)
    for level, of_level in among.quantiles.items():
        np.testing.assert_allclose(alone.quantiles[level][0], of_level[-1], rtol=1e-10)
    other = _model(2, batch_size=3).predict(X[:9])
    np.testing.assert_allclose(other.mean, among.mean[:9], rtol=1e-12)


def test_more_samples_differ_in_a_deep_model(deep: TrainedModel) -> None:
    """What the tests above compare is really sampled."""
    X = _inputs()
    assert np.max(np.abs(_model(2, num_samples=6).predict(X).mean - deep.predict(X).mean)) > 1e-3


def test_little_noise_in_float32_keeps_its_spread() -> None:
    """E[y^2] - E[y]^2 would lose it: 2e-7 of a square of size 10 and more."""
    trained = _model(1, {"name": "gaussian", "variance": 1e-5}, dtype="float32")
    (layer,) = trained.model.deep_gp.f_layers
    layer.q_sqrt.assign(1e-6 * np.eye(6, dtype=np.float32)[None])
    layer.q_mu.assign(layer.q_mu * 10)
    Z = layer.inducing_variable.inducing_variable.Z.numpy()
    prediction = trained.predict(Z * SCALING.x_std + SCALING.x_mean)
    assert np.max(np.abs(prediction.mean - 100.0)) > 30
    # 0.5: the jitter, 1e-5 as well, leaves some variance of f at the inducing inputs
    np.testing.assert_allclose(prediction.std, 7 * np.sqrt(1.5e-5), rtol=0.5)


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(lambda X: {"c": X[:, 2], "a": X[:, 0], "b": X[:, 1]}, id="mapping"),
        pytest.param(
            lambda X: pl.DataFrame({"c": X[:, 2], "z": X[:, 0] * 9, "b": X[:, 1], "a": X[:, 0]}),
            id="frame with another column",
        ),
        pytest.param(lambda X: X.tolist(), id="list"),
        pytest.param(lambda X: tuple(map(tuple, X)), id="tuple"),
    ],
)
def test_tables_equal_the_array_whatever_the_order_of_their_columns(
    shallow: TrainedModel, table: Callable[[FloatArray], Any]
) -> None:
    X = _inputs()
    np.testing.assert_array_equal(shallow.predict(table(X)).mean, shallow.predict(X).mean)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ({"a": [1.0], "c": [1.0]}, r"columns missing: b; the model predicts from a, b, c"),
        (np.zeros((4, 2)), r"X has shape \[4, 2\]; expected \[n, 3\] with n > 0 and columns a, b"),
        (np.zeros(3), r"X has shape \[3\]; expected \[n, 3\]"),
        (np.zeros((0, 3)), r"X has shape \[0, 3\]; expected \[n, 3\] with n > 0"),
        (
            np.array([[1, 2, 3], [1, np.nan, np.inf]]),
            r"2 values that are not finite.*row 1, col.* b",
        ),
        ({"a": [1.0], "b": [1.0], "c": [None]}, r"1 values that are not finite.*row 0, column c"),
        ({"a": [1.0], "b": ["JFK"], "c": [1.0]}, r"column b does not hold numbers: .*'JFK'"),
        ({"a": [1.0, 2.0], "b": [1.0], "c": [1.0]}, r"must match"),
        ([["1", "2", "x"]], r"'x'"),
    ],
    ids=["column", "width", "vector", "no rows", "nan", "none", "text", "lengths", "text in list"],
)
def test_wrong_inputs_are_told(shallow: TrainedModel, X: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shallow.predict(X)


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, float("nan")])
def test_quantiles_out_of_range_are_refused(shallow: TrainedModel, level: float) -> None:
    with pytest.raises(ValueError, match=rf"between 0 and 1, not \[{level}\]"):
        shallow.predict(_inputs(), quantiles=(0.5, level))


def test_no_quantiles_may_be_wanted(deep: TrainedModel) -> None:
    prediction = deep.predict(_inputs(), quantiles=())
    assert prediction.quantiles == {}
    np.testing.assert_array_equal(prediction.mean, deep.predict(_inputs()).mean)


def test_evaluating_and_predicting_do_not_change_the_model(deep: TrainedModel) -> None:
    before = _parameters(deep)
    generator = np.random.default_rng(2)
    rows = Rows(generator.normal(size=(20, 3)), generator.normal(size=(20, 1)))
    figures = deep.evaluate_rows(rows)
    deep.predict(_inputs())
    with pytest.raises(ValueError, match="no rows"):
        deep.evaluate_rows(Rows(np.zeros((0, 3)), np.zeros((0, 1))))
    assert deep.evaluate_rows(rows) == figures
    for one, other in zip(_parameters(deep), before, strict=True):
        np.testing.assert_array_equal(one, other)


# --- loading ----------------------------------------------------------------------------------


def _save(trained: TrainedModel, folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_weights(trained.model, folder)
    structure = structure_of(trained.model.deep_gp)
    replace(trained.record, structure=structure).write(folder)
    (folder / "code").mkdir()
    (folder / "code" / "trial.py").write_text("pass")
    (folder / "state.pkl").write_bytes(pickle.dumps({}))
    write_checksums(folder)
    return folder


@pytest.fixture
def saved(deep: TrainedModel, tmp_path: Path) -> Path:
    return _save(deep, tmp_path / "checkpoint")


@pytest.mark.parametrize("name", ["elsewhere", "we[i]rd", "what?", "a*b"])
def test_what_was_saved_is_loaded_from_anywhere(
    deep: TrainedModel, saved: Path, tmp_path: Path, name: str
) -> None:
    """Also from a path that TensorFlow takes for a pattern."""
    loaded = load(str(shutil.copytree(saved, tmp_path / name)))
    for one, other in zip(_parameters(loaded), _parameters(deep), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(loaded.predict(_inputs()).mean, deep.predict(_inputs()).mean)


def test_a_runs_folder_stands_for_its_best_checkpoint(deep: TrainedModel, tmp_path: Path) -> None:
    best = _save(deep, tmp_path / "run" / "checkpoints" / "8")
    _save(_model(2), tmp_path / "run" / "checkpoints" / "12")
    (tmp_path / "run" / "best").symlink_to(best, target_is_directory=True)
    loaded = load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.predict(_inputs()).mean, deep.predict(_inputs()).mean)


@pytest.fixture
def matern(deep: TrainedModel, tmp_path: Path) -> tuple[Path, Callable[..., DeepGP]]:
    """A checkpoint of a model that its settings do not make, and what makes it."""

    def build(settings: Settings, shape: TaskShape, seed: int) -> DeepGP:
        deep_gp = build_deep_gp(settings.model, shape, seed=seed)
        for layer, width in zip(deep_gp.f_layers, (3, 1), strict=True):
            kernel = gpflow.kernels.Matern32(lengthscales=np.ones(3))
            layer.kernel = gpflow.kernels.SharedIndependent(kernel, output_dim=width)
        return deep_gp

    deep_gp = build(deep.record.settings, deep.record.task.shape, 3)
    generator = np.random.default_rng(0)
    for layer in deep_gp.f_layers:
        layer.q_mu.assign(generator.normal(size=layer.q_mu.shape))
        layer.inducing_variable.inducing_variable.Z.assign(generator.normal(size=(6, 3)))
    model = DeepGPModel(
        deep_gp, natgrad_layers=(), num_samples=1, evaluation_samples=5, y_std=SCALING.y_std
    )
    return _save(TrainedModel(model, deep.record), tmp_path / "matern"), build


def test_a_model_that_its_settings_do_not_make_needs_its_builder(
    matern: tuple[Path, Callable[..., DeepGP]],
) -> None:
    folder, build = matern
    with pytest.raises(ValueError, match=r"pass load\(path, build=...\) a function") as refused:
        load(folder)
    assert "layers[0].kernel.kernel.class is SquaredExponential, but Matern32" in str(refused.value)
    loaded = load(folder, build=build)
    X = tf.constant(SCALING.scale_x(_inputs(4)))
    mean, _ = loaded.model.deep_gp.predictive_marginals(X, 5)
    expected = 7.0 * np.mean(mean, axis=0) + 100.0
    np.testing.assert_allclose(loaded.predict(_inputs(4)).mean, expected, rtol=1e-12)


def test_a_builder_of_another_model_is_told(
    matern: tuple[Path, Callable[..., DeepGP]], saved: Path
) -> None:
    _, build = matern
    with pytest.raises(ValueError, match="of a model that build does not make"):
        load(saved, build=build)

    def larger(settings: Settings, shape: TaskShape, seed: int) -> DeepGP:
        return build_deep_gp(
            settings.model.model_copy(update={"inducing_points": 7}), shape, seed=3
        )

    with pytest.raises(DamagedCheckpoint, match="holds other variables than the model that build"):
        load(saved, build=larger)


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hostile",)


def test_loading_executes_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (saved / "state.pkl").write_bytes(pickle.dumps(_Hostile()))
    (saved / "code" / "trial.py").write_text("raise RuntimeError")
    write_checksums(saved)
    load(saved).predict(np.zeros((1, 3)))
    assert not (tmp_path / "hostile").exists()
    pickle.loads((saved / "state.pkl").read_bytes())  # it is hostile indeed
    assert (tmp_path / "hostile").exists()


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=rf"not a natdgp checkpoint.*no {RECORD_NAME}"):
            load(path)


@pytest.mark.parametrize("name", [RECORD_NAME, f"{WEIGHTS_NAME}.data-00000-of-00001"])
@pytest.mark.parametrize("listing", ["as it was", "{}"])
def test_what_lies_elsewhere_is_not_loaded_through_a_link(
    saved: Path, tmp_path: Path, name: str, listing: str
) -> None:
    (saved / name).rename(tmp_path / name)
    (saved / name).symlink_to(tmp_path / name)
    if listing == "{}":
        (saved / LIST_NAME).write_text(listing)
    with pytest.raises(DamagedCheckpoint, match=f"{name} is a link"):
        load(saved)


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ("settings.model.layers", 3, "layer_with_weights-1/q_mu"),
        ("settings.model.layers", 1, "layer_with_weights-0/q_mu"),
        ("settings.model.inducing_points", 10**9, "layer_with_weights-0/inducing_variable"),
        ("settings.model.hidden_width", 10**9, "layer_with_weights-0/q_mu"),
        ("task.features", ["a", "b"], "layer_with_weights-0/inducing_variable"),
    ],
)
def test_weights_of_another_model_are_refused_before_it_is_built(
    saved: Path, monkeypatch: pytest.MonkeyPatch, path: str, value: Any, name: str
) -> None:
    monkeypatch.delattr(trained_module, "Task")
    record = json.loads((saved / RECORD_NAME).read_text())
    *groups, field = path.split(".")
    functools.reduce(dict.__getitem__, groups, record)[field] = value
    if field == "features":
        record["task"]["scaling"].update(x_mean=[0, 0], x_std=[1, 1])
    (saved / RECORD_NAME).write_text(json.dumps(record))
    write_checksums(saved)
    with pytest.raises(DamagedCheckpoint, match=f"{RECORD_NAME} describes another model .*{name}"):
        load(saved)


@pytest.mark.parametrize(
    ("file", "words"),
    [("index", "index cannot be read"), ("data-00000-of-00001", "claims more weights than its")],
)
def test_weights_that_are_none_are_refused(saved: Path, file: str, words: str) -> None:
    (saved / f"{WEIGHTS_NAME}.{file}").write_bytes(b"x" * 100)
    write_checksums(saved)
    with pytest.raises(DamagedCheckpoint, match=words):
        load(saved)


def test_a_best_checkpoint_outside_the_runs_folder_is_not_followed(
    saved: Path, tmp_path: Path
) -> None:
    (tmp_path / "stolen").mkdir()
    (tmp_path / "stolen" / "best").symlink_to(saved)
    with pytest.raises(ValueError, match="leads out of the run's folder"):
        load(tmp_path / "stolen")
