from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from gpflow.conditionals import conditional
from gpflow.inducing_variables import InducingPoints, SharedIndependentInducingVariables
from gpflow.kernels import SharedIndependent

from natdgp.models.conditional import BLOCK, whitened_marginals


@pytest.mark.parametrize("latent_gps", [1, 3])
@pytest.mark.parametrize("num_inducing", [1, 20, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_marginals_and_gradients_are_gpflows(num_inducing: int, latent_gps: int) -> None:
    generator = np.random.default_rng(num_inducing)
    X = tf.constant(generator.normal(size=(40, 3)))
    kernel = SharedIndependent(gpflow.kernels.Matern52(lengthscales=np.full(3, 0.7)), latent_gps)
    inducing = SharedIndependentInducingVariables(
        InducingPoints(generator.normal(size=(num_inducing, 3)))
    )
    q_mu = tf.Variable(generator.normal(size=(num_inducing, latent_gps)))
    packed = gpflow.Parameter(
        np.tril(generator.normal(size=(latent_gps, num_inducing, num_inducing))),
        transform=gpflow.utilities.triangular(),
    )
    variables = [
        q_mu,
        packed.unconstrained_variable,
        *inducing.trainable_variables,
        *kernel.trainable_variables,
    ]
    outcomes = []
    for marginals in (
        lambda: whitened_marginals(X, inducing, kernel, q_mu, packed),
        lambda: conditional(X, inducing, kernel, q_mu, q_sqrt=packed, white=True),
    ):
        with tf.GradientTape() as tape:
            mean, var = marginals()
            loss = tf.reduce_sum(tf.square(mean)) + tf.reduce_sum(tf.square(var))
        outcomes.append([mean, var, *tape.gradient(loss, variables)])
    for ours, theirs in zip(*outcomes, strict=True):
        # Two orders of summation over at most 133 terms in float64.
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9 * np.max(np.abs(theirs)))
