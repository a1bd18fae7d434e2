from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from gpflow.kullback_leiblers import gauss_kl

from natdgp.models.whitened_kl import whitened_kl


@pytest.mark.parametrize("M", [1, 2, 5, 16])
@pytest.mark.parametrize("P", [1, 3])
def test_value_and_gradients_are_gpflows(M: int, P: int) -> None:
    generator = np.random.default_rng(M)
    q_mu = tf.Variable(generator.normal(size=(M, P)))
    q_sqrt = gpflow.Parameter(
        np.tril(generator.normal(size=(P, M, M))), transform=gpflow.utilities.triangular()
    )
    packed = q_sqrt.unconstrained_variable
    outcomes = []
    for kl in (
        lambda: whitened_kl(tf.convert_to_tensor(q_mu), tf.convert_to_tensor(q_sqrt)),
        lambda: gauss_kl(q_mu, q_sqrt),
    ):
        with tf.GradientTape() as tape:
            value = 0.3 * kl()
        outcomes.append([value, *tape.gradient(value, [q_mu, packed])])
    for ours, theirs in zip(*outcomes, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
