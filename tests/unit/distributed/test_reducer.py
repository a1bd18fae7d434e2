import numpy as np
import pytest
import tensorflow as tf

from natdgp.distributed.reducer import OneProcess, Reducer


@pytest.fixture
def alone() -> Reducer:
    return OneProcess()


def test_one_process_is_rank_0_of_1(alone: Reducer) -> None:
    assert (alone.rank, alone.size) == (0, 1)


def test_one_process_keeps_its_sums_as_they_are(alone: Reducer) -> None:
    sums = tf.constant([1.0, np.pi], tf.float64)
    assert alone.total(sums) is sums


def test_one_process_keeps_its_variables_as_they_are(alone: Reducer) -> None:
    variables = [tf.Variable(1.5), tf.Variable([[2.0, np.pi]], dtype=tf.float64)]
    alone.broadcast(variables)
    np.testing.assert_array_equal(variables[0], 1.5)
    np.testing.assert_array_equal(variables[1], [[2.0, np.pi]])


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_one_process_gathers_its_own_tensor_alone(alone: Reducer, shape: tuple[int, ...]) -> None:
    own = tf.reshape(tf.range(np.prod(shape, dtype=int), dtype=tf.int64), shape)
    gathered = alone.gather(own)
    assert gathered.dtype == tf.int64
    np.testing.assert_array_equal(gathered, own.numpy()[None])


def test_one_process_has_the_only_row_of_what_is_scattered(alone: Reducer) -> None:
    np.testing.assert_array_equal(alone.scatter(tf.constant([[1.5, -2.0]])), [1.5, -2.0])
