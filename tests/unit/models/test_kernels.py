"""Kernels that are GPflow's, computed with fewer passes."""

from __future__ import annotations

from typing import Any

import gpflow
import numpy as np
import pytest
import tensorflow as tf

from natdgp.models.kernels import Matern32, Matern52, SquaredExponential

KERNELS = [
    (SquaredExponential, gpflow.kernels.SquaredExponential),
    (Matern32, gpflow.kernels.Matern32),
    (Matern52, gpflow.kernels.Matern52),
]


@pytest.mark.parametrize(("ours", "theirs"), KERNELS)
@pytest.mark.parametrize("ard", [True, False])
@pytest.mark.parametrize("with_itself", [True, False])
def test_values_and_gradients_are_gpflows(
    ours: Any, theirs: Any, ard: bool, with_itself: bool
) -> None:
    generator = np.random.default_rng(0)
    X = tf.Variable(generator.normal(size=(30, 4)))
    X2 = None if with_itself else tf.Variable(generator.normal(size=(20, 4)))
    arguments = {"variance": 1.7, "lengthscales": generator.uniform(0.5, 2, 4) if ard else 0.8}
    bar = tf.constant(generator.normal(size=(30, 30 if with_itself else 20)))
    if with_itself:  # at distance 0 the square root of Matern kernels has no derivative
        bar = tf.linalg.set_diag(bar, tf.zeros(30, tf.float64))
    outcomes = []
    for kernel in (ours(**arguments), theirs(**arguments)):
        inputs = [X] if X2 is None else [X, X2]
        with tf.GradientTape() as tape:
            K = kernel(X, X2)
        sources = [*inputs, *kernel.trainable_variables]
        outcomes.append([K, *tape.gradient(K, sources, output_gradients=bar)])
        np.testing.assert_allclose(kernel(X, full_cov=False), np.full(30, 1.7))
    for one, other in zip(*outcomes, strict=True):
        # Distances cancel to about 1e-15; the square root of a Matern kernel makes that 3e-8 at
        # distance 0, where both are wrong alike but not equally.
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-7 if with_itself else 1e-10)


@pytest.mark.parametrize("kind", [ours for ours, _ in KERNELS])
def test_active_dimensions_are_obeyed(kind: Any) -> None:
    X = tf.constant(np.random.default_rng(2).normal(size=(6, 3)))
    whole, part = kind(active_dims=[0, 2]), kind()
    np.testing.assert_allclose(whole(X), part(tf.gather(X, [0, 2], axis=1)))


@pytest.mark.parametrize("kind", [ours for ours, _ in KERNELS])
def test_coincident_inputs_in_float32_give_finite_gradients(
    kind: Any, gpflow_defaults: None
) -> None:
    gpflow.config.set_default_float(np.float32)  # in the fixture's context
    X = tf.Variable(np.ones((4, 3), np.float32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(kind()(X, tf.constant(np.ones((2, 3), np.float32))))
    assert np.all(np.isfinite(tape.gradient(loss, X)))
