from __future__ import annotations

from functools import partial

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from gpflow.conditionals import conditional
from gpflow.inducing_variables import InducingPoints, SharedIndependentInducingVariables
from gpflow.kernels import SharedIndependent

from natdgp.models.conditional import BLOCK, marginals, whitened_marginals
from natdgp.models.kernels import SquaredExponential
from tests.conftest import FloatArray


def _inducing(Z: FloatArray) -> SharedIndependentInducingVariables:
    return SharedIndependentInducingVariables(InducingPoints(Z))


@pytest.mark.parametrize("latent_gps", [1, 3])
@pytest.mark.parametrize("num_inducing", [1, 20, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_marginals_and_gradients_are_gpflows(num_inducing: int, latent_gps: int) -> None:
    generator = np.random.default_rng(num_inducing)
    X = tf.constant(generator.normal(size=(40, 3)))
    kernel = SharedIndependent(gpflow.kernels.Matern52(lengthscales=np.full(3, 0.7)), latent_gps)
    inducing = _inducing(generator.normal(size=(num_inducing, 3)))
    q_mu = tf.Variable(generator.normal(size=(num_inducing, latent_gps)))
    packed = gpflow.Parameter(
        np.tril(generator.normal(size=(latent_gps, num_inducing, num_inducing))),
        transform=gpflow.utilities.triangular(),
    )
    variables = [q_mu, *(v for one in (packed, inducing, kernel) for v in one.trainable_variables)]
    outcomes = []
    for marginals_of in (
        lambda: whitened_marginals(X, inducing, kernel, q_mu, packed, jitter=1e-6),
        lambda: conditional(X, inducing, kernel, q_mu, q_sqrt=packed, white=True),
    ):
        with tf.GradientTape() as tape:
            mean, var = marginals_of()
            loss = tf.reduce_sum(tf.square(mean)) + tf.reduce_sum(tf.square(var))
        outcomes.append([mean, var, *tape.gradient(loss, variables)])
    for ours, theirs in zip(*outcomes, strict=True):
        # Two orders of summation over at most 133 terms in float64.
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9 * np.max(np.abs(theirs)))


def test_equal_calls_give_equal_gradients() -> None:
    """As rounding goes too: a sum of three terms must not depend on which is there first."""
    M, P, N, D = 100, 3, 1000, 8
    generator = np.random.default_rng(0)
    X, Y = (tf.constant(generator.normal(size=(N, width))) for width in (D, P))
    kernel = SharedIndependent(SquaredExponential(lengthscales=np.full(D, 2.0)), P)
    inducing = _inducing(generator.normal(size=(M, D)))
    q_mu = tf.Variable(generator.normal(size=(M, P)))
    q_sqrt = tf.Variable(np.tril(generator.normal(size=(P, M, M))))

    @tf.function
    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            mean, var = marginals(X, inducing, kernel, q_mu, q_sqrt, whiten=True, jitter=1e-6)
            loss = tf.reduce_sum(tf.square(mean - Y)) + tf.reduce_sum(tf.square(var))
        variables = [*kernel.trainable_variables, *inducing.trainable_variables, q_mu, q_sqrt]
        return [loss, *tape.gradient(loss, variables)]

    first = gradients()
    for _ in range(100):
        for value, expected in zip(gradients(), first, strict=True):
            np.testing.assert_array_equal(value, expected)


def test_crowded_inducing_points_leave_a_variance_with_its_derivative(
    gpflow_defaults: None,
) -> None:
    gpflow.config.set_default_float(np.float32)  # in the fixture's context
    M = 200
    X = tf.constant(np.random.default_rng(0).normal(size=(1000, 1)), tf.float32)
    kernel = SharedIndependent(SquaredExponential(variance=2.0, lengthscales=3.0), 1)
    inducing = _inducing(np.linspace(-2, 2, M)[:, None])
    arguments = X, inducing, kernel, tf.zeros([M, 1]), 1e-5 * tf.eye(M)[None]
    outcomes = []
    for marginals_of in (partial(marginals, whiten=True), whitened_marginals):
        with tf.GradientTape(persistent=True) as tape:
            _, var = marginals_of(*arguments, jitter=1e-5)
            std = tf.sqrt(var)
        variables = [*kernel.trainable_variables, *inducing.trainable_variables]
        outcomes.append([var.numpy(), *(tape.gradient(y, variables) for y in (var, std))])
    (floored, derivative, of_std), (unfloored, expected, of_unfloored) = outcomes
    assert 0.5 < np.mean(unfloored < 0) < 1
    assert np.isnan(of_unfloored[0])
    floor = np.float32(2) * np.finfo(np.float32).eps
    np.testing.assert_array_equal(floored, np.maximum(unfloored, floor))
    for one, other in zip(derivative, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(np.all(np.isfinite(gradient)) for gradient in of_std)
