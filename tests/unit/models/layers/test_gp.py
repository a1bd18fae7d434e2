from __future__ import annotations

from typing import Any

import gpflow
import gpflux
import numpy as np
import pytest
import tensorflow as tf
from gpflow.inducing_variables import (
    InducingPoints,
    SeparateIndependentInducingVariables,
    SharedIndependentInducingVariables,
)
from gpflow.kernels import LinearCoregionalization, SeparateIndependent, SharedIndependent

from natdgp.models.layers.gp import JITTER, GPLayer
from tests.conftest import FloatArray

M, D, P, N = 7, 3, 2, 5
FORMS = [(False, False), (True, False), (False, True)]


def _points(generator: np.random.Generator) -> InducingPoints:
    return InducingPoints(generator.normal(size=(M, D)))


def _kernels() -> list[gpflow.kernels.Kernel]:
    return [gpflow.kernels.Matern52(1.3), gpflow.kernels.SquaredExponential(0.8, [0.5, 1.0, 2.0])]


def _layer(kind: Any, combination: str, **arguments: Any) -> Any:
    """A layer of P latent GPs whose q(u) is away from the prior; equal arguments, equal layers."""
    generator = np.random.default_rng(0)
    shared = SharedIndependentInducingVariables(_points(generator))
    separate = SeparateIndependentInducingVariables([_points(generator) for _ in range(P)])
    kernel, inducing = {
        "shared": (SharedIndependent(_kernels()[0], P), shared),
        "separate kernels": (SeparateIndependent(_kernels()), shared),
        "separate points": (SharedIndependent(_kernels()[0], P), separate),
        "both separate": (SeparateIndependent(_kernels()), separate),
        "mixed": (LinearCoregionalization(_kernels(), generator.normal(size=(4, P))), shared),
    }[combination]
    mean_function = gpflow.mean_functions.Linear(
        generator.normal(size=(D, 4 if combination == "mixed" else P))
    )
    layer = kind(kernel, inducing, 50, mean_function, name="layer", **arguments)
    layer.q_mu.assign(generator.normal(size=(M, P)))
    layer.q_sqrt.assign(np.tril(generator.normal(size=(P, M, M))))
    return layer


def _rows(dtype: str = "float64") -> Any:
    return np.random.default_rng(1).normal(size=(N, D)).astype(dtype)


COMBINATIONS = pytest.mark.parametrize(
    "combination", ["shared", "separate kernels", "separate points", "both separate", "mixed"]
)
WHITEN = pytest.mark.parametrize("whiten", [True, False])


def _values_and_gradients(layer: Any, **call: Any) -> list[FloatArray]:
    """Of what training takes from a Keras layer: marginals, losses, and all derivatives."""
    with tf.GradientTape() as tape:
        distribution = layer(_rows(), training=True)
        (loss,) = layer.losses
        total = 100 * loss + tf.reduce_sum(tf.sin(distribution.mean()) + distribution.variance())
    gradients = tape.gradient(total, layer.trainable_variables)
    return [distribution.mean(), distribution.variance(), loss, *gradients]


@COMBINATIONS
@WHITEN
def test_marginals_losses_and_gradients_are_gpfluxs(combination: str, whiten: bool) -> None:
    ours, theirs = (
        _values_and_gradients(_layer(kind, combination, whiten=whiten))
        for kind in (GPLayer, gpflux.layers.GPLayer)
    )
    assert len(ours) == len(theirs) > 5
    for one, other in zip(ours, theirs, strict=True):
        # Two orders of summation, through a Cholesky whose matrix has a condition below 1e4.
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10 * np.max(np.abs(other)))


@pytest.mark.parametrize("combination", ["shared", "mixed"])
@WHITEN
@pytest.mark.parametrize(("full_cov", "full_output_cov"), FORMS[1:])
def test_predictions_are_gpfluxs(
    combination: str, whiten: bool, full_cov: bool, full_output_cov: bool
) -> None:
    forms = {"full_cov": full_cov, "full_output_cov": full_output_cov}
    outcomes = [
        _layer(kind, combination, whiten=whiten).predict(_rows(), **forms)
        for kind in (GPLayer, gpflux.layers.GPLayer)
    ]
    for ours, theirs in zip(*outcomes, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("num_samples", [None, 3])
@pytest.mark.parametrize(("full_cov", "full_output_cov"), FORMS)
def test_samples_are_those_gpflux_draws_from_the_same_seed(
    num_samples: int | None, full_cov: bool, full_output_cov: bool
) -> None:
    samples = []
    for kind in (GPLayer, gpflux.layers.GPLayer):
        forms = {"full_cov": full_cov, "full_output_cov": full_output_cov}
        layer = _layer(kind, "shared", num_samples=num_samples, **forms)
        tf.random.set_seed(0)
        samples.append(tf.convert_to_tensor(layer(_rows())).numpy())
    assert samples[0].shape == ((N, P) if num_samples is None else (num_samples, N, P))
    np.testing.assert_allclose(samples[0], samples[1], rtol=1e-8, atol=1e-9)


def test_a_sampled_function_is_the_same_where_it_is_asked_again() -> None:
    layer = _layer(GPLayer, "shared", whiten=False)
    function = layer.sample()
    one, both = function(_rows()), function(np.concatenate([_rows(), _rows() + 1]))
    assert both.shape == (2 * N, P)
    # The covariance of twice the same rows is singular but for the jitter.
    np.testing.assert_allclose(one, both[:N], atol=0.05)


def test_explicit_arguments_are_used_instead_of_the_layers_own() -> None:
    layer, other = _layer(GPLayer, "shared"), _layer(GPLayer, "shared")
    q = layer.posterior()
    other.q_mu.assign(other.q_mu * 0)
    np.testing.assert_array_equal(other.marginals(_rows(), q)[0], layer.predict(_rows())[0])
    assert float(other.kl(q)) == float(layer.prior_kl()) != float(other.prior_kl())


@pytest.mark.parametrize("combination", ["shared", "mixed"])
@WHITEN
def test_layers_of_both_float_types_live_in_one_process(combination: str, whiten: bool) -> None:
    layers = {}
    for dtype in ("float64", "float32"):
        with gpflow.config.as_context(gpflow.config.Config(float=np.dtype(dtype).type)):
            layers[dtype] = _layer(GPLayer, combination, whiten=whiten)
    outcomes: dict[str, list[Any]] = {"float64": [], "float32": []}
    for dtype in ("float32", "float64", "float32"):
        layer, rows = layers[dtype], _rows(dtype)
        distribution = layer(rows, training=True)
        cov = layer.predict(rows, full_cov=True)[1]
        values = [distribution.mean(), distribution.variance(), cov, *layer.losses]
        values.append(layer.prior_kl())
        drawn = [tf.convert_to_tensor(distribution)]
        if combination != "mixed":  # GPflux draws no functions of mixed latent GPs
            drawn.append(layer.sample()(rows))
        assert {value.dtype for value in values + drawn} == {tf.as_dtype(dtype)}
        outcomes[dtype].append(values)
    first, again = outcomes["float32"]
    for value, same, wide in zip(first, again, *outcomes["float64"], strict=True):
        np.testing.assert_array_equal(value, same)
        np.testing.assert_allclose(value, wide, rtol=1e-3, atol=1e-3)  # float32, two jitters


@WHITEN
@pytest.mark.parametrize("full_cov", [True, False])
def test_jitter_is_the_layers_own(whiten: bool, full_cov: bool, gpflow_defaults: None) -> None:
    def outcome(**arguments: Any) -> FloatArray:
        layer = _layer(GPLayer, "shared", whiten=whiten, **arguments)
        gpflow.config.set_default_jitter(0.5)  # in the fixture's context
        cov = layer.predict(_rows(), full_cov=full_cov)[1]
        return np.append(np.ravel(cov), layer.prior_kl())

    np.testing.assert_array_equal(outcome(), outcome(jitter=JITTER["float64"]))
    assert np.max(np.abs(outcome() - outcome(jitter=0.1))) > 0.01
