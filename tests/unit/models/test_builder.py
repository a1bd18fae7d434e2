from __future__ import annotations

from pathlib import Path
from typing import Any

import gpflow
import numpy as np
import pytest
import tensorflow as tf

from natdgp.likelihoods.gaussian import GaussianSettings
from natdgp.likelihoods.student_t import StudentTSettings
from natdgp.models.builder import MAX_DEFAULT_WIDTH, TaskShape, build_deep_gp
from natdgp.models.deep_gp import DeepGP
from natdgp.models.inducing import kmeans_inducing_points
from natdgp.models.layers.gp import JITTER
from natdgp.models.model_settings import KernelSettings, ModelSettings
from tests.conftest import FloatArray

N = 60
SEED = 5


def _rows(width: int = 3) -> FloatArray:
    """Correlated columns of unequal variance, so that principal components are distinct."""
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(width, width)) * np.arange(1, width + 1)
    return generator.normal(size=(N, width)) @ mixing


def _build(
    X: FloatArray | None = None,
    *,
    input_dim: int = 3,
    output_dim: int = 1,
    shell: bool = False,
    **settings: Any,
) -> DeepGP:
    X = _rows(input_dim) if X is None else X
    model, task = (
        ModelSettings(**{"inducing_points": 6, **settings}),
        TaskShape(N, input_dim, output_dim),
    )
    return build_deep_gp(model, task, seed=SEED, X=None if shell else X)


def _Z(deep_gp: DeepGP, layer: int) -> Any:
    return deep_gp.f_layers[layer].inducing_variable.inducing_variable.Z


def _kernel(deep_gp: DeepGP, layer: int = 0) -> Any:
    (kernel,) = deep_gp.f_layers[layer].kernel.latent_kernels
    return kernel


# --- latent variables -------------------------------------------------------------------------


def test_latent_variables_widen_what_follows_and_start_as_their_prior() -> None:
    layers: Any = ("gp", {"latent": {"dim": 2}}, {"gp": {"inducing_points": 9}}, "gp")
    deep_gp = _build(layers=layers, output_dim=1)
    assert [_Z(deep_gp, index).shape for index in (0, 2, 3)] == [(6, 3), (9, 5), (6, 5)]
    assert [layer.q_mu.shape[1] for layer in deep_gp.gp_layers] == [3, 5, 1]
    known = kmeans_inducing_points(_rows(), 9, SEED)
    np.testing.assert_array_equal(_Z(deep_gp, 2)[:, :3], known)
    assert 0.4 < np.std(_Z(deep_gp, 2)[:, 3:]) < 1.6
    shell = build_deep_gp(
        ModelSettings(layers=layers, inducing_points=6), TaskShape(N, 3, 1), seed=SEED
    )
    shapes = [[one.shape for one in model.trainable_variables] for model in (deep_gp, shell)]
    assert shapes[0] == shapes[1]


# --- widths and mean functions ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("input_dim", "hidden_width", "widths"),
    [
        (3, None, [3, 3, 2]),
        (MAX_DEFAULT_WIDTH + 5, None, [MAX_DEFAULT_WIDTH, MAX_DEFAULT_WIDTH, 2]),
        (3, 2, [2, 2, 2]),
        (3, 5, [5, 5, 2]),
    ],
)
def test_widths_of_the_layers(input_dim: int, hidden_width: int | None, widths: list[int]) -> None:
    deep_gp = _build(
        input_dim=input_dim,
        output_dim=2,
        layers=3,
        inducing_points=(4, 5, 6),
        hidden_width=hidden_width,
    )
    input_dims = [input_dim, *widths[:-1]]
    for index, (M, in_dim, out_dim) in enumerate(zip((4, 5, 6), input_dims, widths, strict=True)):
        layer = deep_gp.f_layers[index]
        assert _Z(deep_gp, index).shape == (M, in_dim)
        assert layer.q_mu.shape == (M, out_dim)
        assert layer.q_sqrt.shape == (out_dim, M, M)
        assert layer.name == f"layer_{index}"
        assert layer.num_data == N
    assert deep_gp.num_data == N


@pytest.mark.parametrize("hidden_width", [1, 2, 3, 5])
def test_the_first_mean_function_narrows_keeps_or_pads_its_inputs(hidden_width: int) -> None:
    X = _rows()
    deep_gp = _build(X, layers=3, hidden_width=hidden_width)
    first, second, last = (layer.mean_function for layer in deep_gp.f_layers)
    F = first(X)
    if hidden_width < 3:  # the leading principal components
        A = first.A.numpy()
        _, _, right = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)  # variances descend
        # Components are known up to sign; two solvers agree on them to rounding.
        expected = np.eye(hidden_width)
        np.testing.assert_allclose(np.abs(right[:hidden_width] @ A), expected, atol=1e-10)
        np.testing.assert_allclose(F, X @ A, atol=1e-12)
    else:
        np.testing.assert_array_equal(F, np.pad(X, [(0, 0), (0, hidden_width - 3)]))
    np.testing.assert_array_equal(second(F), F)
    np.testing.assert_array_equal(last(F), np.zeros((N, 1)))
    assert all(layer.mean_function.trainable_variables == () for layer in deep_gp.f_layers)


# --- inducing inputs and q(u) -----------------------------------------------------------------


@pytest.mark.parametrize("hidden_width", [2, 3, 5])
def test_inducing_inputs_start_at_centres_of_rows_pushed_through_mean_functions(
    hidden_width: int,
) -> None:
    X = _rows()
    deep_gp = _build(X, layers=3, inducing_points=(6, 7, 8), hidden_width=hidden_width)
    inputs = X
    for index, M in enumerate((6, 7, 8)):
        Z = kmeans_inducing_points(inputs, M, SEED)
        np.testing.assert_allclose(_Z(deep_gp, index).numpy(), Z, atol=1e-12)  # rounding
        inputs = np.asarray(deep_gp.f_layers[index].mean_function(inputs))


@pytest.mark.parametrize("layers", [1, 3])
def test_inner_layers_start_almost_certain_and_the_last_at_the_prior(layers: int) -> None:
    deep_gp = _build(layers=layers, inner_q_sqrt_scale=1e-3)
    scales = [1e-3, 1e-3, 1.0][-layers:]
    for layer, scale in zip(deep_gp.f_layers, scales, strict=True):
        identity = np.broadcast_to(np.eye(6), layer.q_sqrt.shape)
        np.testing.assert_allclose(layer.q_sqrt.numpy(), scale * identity, rtol=1e-12)
        np.testing.assert_array_equal(layer.q_mu.numpy(), np.zeros(layer.q_mu.shape))


@pytest.mark.parametrize("trained", [True, False])
def test_inducing_inputs_are_trained_if_the_settings_say_so(trained: bool) -> None:
    deep_gp = _build(train_inducing_points=trained)
    for index, layer in enumerate(deep_gp.f_layers):
        names = {id(v) for v in layer.trainable_variables}
        assert (id(_Z(deep_gp, index).unconstrained_variable) in names) is trained
        assert id(layer.q_mu.unconstrained_variable) in names
        assert id(_kernel(deep_gp, index).variance.unconstrained_variable) in names


# --- kernels and likelihoods ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("squared_exponential", gpflow.kernels.SquaredExponential),
        ("matern32", gpflow.kernels.Matern32),
        ("matern52", gpflow.kernels.Matern52),
    ],
)
def test_kernels_by_name_each_layer_its_own(name: Any, cls: type[gpflow.kernels.Kernel]) -> None:
    deep_gp = _build(kernel=KernelSettings(name=name, variance=2.5))
    kernels = [_kernel(deep_gp, index) for index in range(2)]
    assert kernels[0] is not kernels[1]
    for kernel in kernels:
        assert isinstance(kernel, cls)
        # Through softplus and back.
        assert float(kernel.variance.numpy()) == pytest.approx(2.5, rel=1e-12)


@pytest.mark.parametrize("ard", [True, False])
@pytest.mark.parametrize("lengthscale", [None, 0.7])
def test_lengthscales_one_per_input_or_one_for_all(ard: bool, lengthscale: float | None) -> None:
    deep_gp = _build(kernel=KernelSettings(ard=ard, lengthscale=lengthscale), hidden_width=2)
    for index, in_dim in enumerate((3, 2)):
        lengthscales = _kernel(deep_gp, index).lengthscales
        assert lengthscales.shape == ((in_dim,) if ard else ())
        expected = lengthscale or np.sqrt(in_dim)
        np.testing.assert_allclose(lengthscales.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "starts"),
    [
        (GaussianSettings(variance=0.3), {"variance": 0.3}),
        (
            StudentTSettings(name="student_t", scale=0.4, degrees_of_freedom=5.0),
            {"scale": 0.4, "df": 5.0},
        ),
    ],
)
def test_a_likelihood_starts_at_its_settings_and_trains_one_number(
    settings: Any, starts: dict[str, float]
) -> None:
    likelihood = _build(likelihood=settings).gpflow_likelihood
    for name, start in starts.items():
        assert float(np.asarray(getattr(likelihood, name))) == pytest.approx(start, rel=1e-12)
    assert len(likelihood.trainable_variables) == 1


# --- float type -------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_width", [2, 3, 5])
def test_models_of_both_float_types_live_together(hidden_width: int) -> None:
    before = gpflow.config.config()
    sizes: dict[str, Any] = {"layers": 3, "hidden_width": hidden_width}
    double, single = (
        _build(_rows().astype(dtype), dtype=dtype, **sizes) for dtype in ("float64", "float32")
    )
    for deep_gp, dtype in ((double, "float64"), (single, "float32"), (double, "float64")):
        shell = _build(shell=True, dtype=dtype, **sizes)
        assert {v.dtype.name for v in (*deep_gp.variables, *shell.variables)} == {dtype}
        assert {layer.jitter for layer in deep_gp.f_layers} == {JITTER[dtype]}
        X, Y, positions = tf.constant(_rows()[:4], dtype), tf.zeros([4, 1], dtype), tf.range(4)
        elbo = deep_gp.elbo(X, Y, tf.cast(positions, tf.int64), 2)
        for value in (elbo, deep_gp.kl(), *deep_gp.predictive_marginals(X, 2)):
            assert value.dtype.name == dtype
            assert np.all(np.isfinite(value))
    assert gpflow.config.config() == before


# --- shells -----------------------------------------------------------------------------------

SHAPES: list[dict[str, Any]] = [
    {"layers": 1},
    {"layers": 3, "hidden_width": 2, "inducing_points": (4, 5, 6)},
    {"layers": 2, "hidden_width": 5, "train_inducing_points": False},
    {"likelihood": StudentTSettings(name="student_t"), "kernel": KernelSettings(ard=False)},
]


@pytest.mark.parametrize("settings", SHAPES)
def test_a_shell_has_the_variables_of_the_full_model_and_restored_predicts_as_it_does(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    full, shell = _build(output_dim=2, **settings), _build(shell=True, output_dim=2, **settings)
    described, of_shell = (
        [(v.name, v.shape.as_list(), v.dtype, v.trainable) for v in deep_gp.variables]
        for deep_gp in (full, shell)
    )
    assert of_shell == described
    generator = np.random.default_rng(1)
    for layer in full.f_layers:
        layer.q_mu.assign(generator.normal(size=layer.q_mu.shape))
    X = tf.constant(_rows()[:7])
    expected = full.predictive_marginals(X, 2)
    assert np.all(shell.predictive_marginals(X, 2)[0] != expected[0])  # different before

    path = tf.train.Checkpoint(full).write(str(tmp_path / "weights"))
    tf.train.Checkpoint(shell).read(path).assert_consumed()
    for ours, theirs in zip(shell.predictive_marginals(X, 2), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
