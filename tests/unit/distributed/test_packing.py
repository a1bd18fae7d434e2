from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from natdgp.distributed.packing import packed_sum, unpacked_means
from tests.conftest import FloatArray

SHAPES: list[tuple[int, ...]] = [(), (3,), (2, 1, 2), (1, 1)]
SIZE = 1 + 3 + 4 + 1


def _per_example(num_examples: int) -> list[FloatArray]:
    """What each of the examples contributes, for every shape: [n, ...]."""
    generator = np.random.default_rng(0)
    return [generator.normal(size=(num_examples, *shape)) for shape in SHAPES]


def _means(per_example: Sequence[FloatArray], rows: slice, dtype: Any = tf.float64) -> list[Any]:
    return [tf.constant(values[rows].mean(axis=0), dtype) for values in per_example]


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32], ids=lambda d: d.name)
def test_one_batch_is_restored_to_its_shapes_and_type(dtype: Any) -> None:
    means = _means(_per_example(7), slice(None), dtype)
    vector = packed_sum(means, tf.constant(7))
    assert vector.shape == (SIZE + 1,)
    assert vector.dtype == dtype
    restored = unpacked_means(vector, means)
    assert len(restored) == len(SHAPES)
    for found, mean, shape in zip(restored, means, SHAPES, strict=True):
        assert found.shape == shape
        assert found.dtype == dtype
        # Multiplied by 7 and divided by it: one rounding each.
        np.testing.assert_allclose(found, mean, rtol=2 * float(np.finfo(dtype.as_numpy_dtype).eps))


@pytest.mark.parametrize("sizes", [(12,), (6, 6), (1, 11), (5, 4, 3), (9, 1, 1, 1)])
def test_batches_of_any_sizes_sum_to_the_whole(sizes: tuple[int, ...]) -> None:
    per_example = _per_example(12)
    ends = np.cumsum(sizes)
    vectors = [
        packed_sum(_means(per_example, slice(end - size, end)), tf.constant(size))
        for size, end in zip(sizes, ends, strict=True)
    ]
    like = _means(per_example, slice(None))
    for found, expected in zip(unpacked_means(tf.add_n(vectors), like), like, strict=True):
        # Sums of 12 numbers of size 1, in another order.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("others", [0.0, 1e300])
def test_a_part_of_no_examples_counts_for_nothing(others: float) -> None:
    means = _means(_per_example(5), slice(None))
    nothing = packed_sum([tf.fill(shape, tf.constant(others, tf.float64)) for shape in SHAPES], 0)
    np.testing.assert_array_equal(nothing, np.zeros(SIZE + 1))
    own = packed_sum(means, tf.constant(5))
    for found, alone in zip(
        unpacked_means(own + nothing, means), unpacked_means(own, means), strict=True
    ):
        np.testing.assert_array_equal(found, alone)


def test_a_graph_packs_and_unpacks_whatever_the_number_of_examples() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float64)])
    def through(rows: tf.Tensor) -> tf.Tensor:
        means = [tf.reduce_mean(rows, axis=0), tf.reduce_mean(rows)]
        return unpacked_means(packed_sum(means, tf.shape(rows)[0]), means)

    for count in (2, 5):
        rows = np.random.default_rng(count).normal(size=(count, 2))
        by_column, overall = through(tf.constant(rows))
        np.testing.assert_allclose(by_column, rows.mean(axis=0), rtol=1e-12)  # order of sums
        np.testing.assert_allclose(overall, rows.mean(), rtol=1e-12)
