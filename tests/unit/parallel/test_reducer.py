import numpy as np
import pytest
import tensorflow as tf

from natdgp.parallel import OneProcess, Reducer


@pytest.fixture
def alone() -> Reducer:
    return OneProcess()


def test_one_process_is_rank_0_of_1(alone: Reducer) -> None:
    assert (alone.rank, alone.size) == (0, 1)


@pytest.mark.parametrize("examples", [0, 1, 64])
def test_one_process_keeps_its_gradients_as_they_are(alone: Reducer, examples: int) -> None:
    gradients = (tf.constant([1.5, -2.0]), tf.constant([[3.0]], tf.float64), tf.constant(0.25))
    averaged = alone.average(gradients, tf.constant(examples))
    assert isinstance(averaged, list)
    assert len(averaged) == 3
    assert all(one is other for one, other in zip(averaged, gradients, strict=True))


def test_one_process_keeps_its_sums_as_they_are(alone: Reducer) -> None:
    sums = tf.constant([1.0, np.pi], tf.float64)
    assert alone.total(sums) is sums
