from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf

from natdgp.models.encoders import MLPEncoder, RowEncoder


def test_a_network_starts_near_the_prior_and_certain_and_follows_from_its_seed() -> None:
    inputs = tf.constant(np.random.default_rng(0).normal(size=(500, 3)))
    one, again, other = (MLPEncoder(3, 2, (16, 8), seed=seed) for seed in (1, 1, 2))
    mean, std = one(inputs)
    assert mean.shape == std.shape == (500, 2)
    assert np.std(mean) < 2
    np.testing.assert_allclose(np.median(std), np.log1p(np.exp(-3)), rtol=0.3)
    np.testing.assert_array_equal(mean, again(inputs)[0])
    assert not np.array_equal(mean, other(inputs)[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_encoders_are_of_gpflows_float_type_and_can_be_restored_at_once(dtype: type) -> None:
    with gpflow.config.as_context(gpflow.config.Config(float=dtype)):
        network, rows = MLPEncoder(3, 2, (4,), seed=0), RowEncoder(5, 2, seed=0)
    assert len(network.trainable_variables) == 4
    assert len(rows.trainable_variables) == 2
    for variable in (*network.trainable_variables, *rows.trainable_variables):
        assert variable.dtype == tf.as_dtype(dtype)
