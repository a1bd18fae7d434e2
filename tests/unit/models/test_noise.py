from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from natdgp.models.noise import SamplingNoise, Stream
from tests.conftest import FloatArray

SEED = 11
FIRST = 4
B = 10


def _draw(
    stream: Stream = Stream.TRAINING,
    layer: int = 1,
    first: int = FIRST,
    num_rows: int = B,
    num_samples: int = 2,
    width: int = 3,
    dtype: Any = tf.float64,
    seed: int = SEED,
) -> FloatArray:
    """[S, n, Q]"""
    positions = tf.range(first, first + num_rows, dtype=tf.int64)
    draws = SamplingNoise(seed).at(stream, positions, num_samples)
    return np.asarray(draws.normal(layer, width, dtype))


both_types = pytest.mark.parametrize("dtype", [tf.float64, tf.float32], ids=lambda d: d.name)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": SEED + 1},
        # Seeds that agree in their low bits.
        *({"seed": SEED + high} for high in (2**32, 2**33, 5 * 2**32, 2**62, 2**64, 2**100)),
        {"stream": Stream.EVALUATION},
        {"stream": Stream.PREDICTION},
        {"layer": 2},
        {"first": FIRST + B},
        {"first": FIRST + 1},  # the rows that both draws have are at other places
    ],
    ids=str,
)
def test_equal_keys_give_equal_numbers_and_each_part_of_them_changes_every_number(
    change: dict[str, Any],
) -> None:
    np.testing.assert_array_equal(_draw(), _draw())
    assert np.all(_draw() != _draw(**change))


def test_no_two_sequences_rows_samples_or_outputs_have_a_number_in_common() -> None:
    sequences = [
        _draw(stream=stream, layer=layer, first=0, num_rows=200)
        for stream in Stream
        for layer in range(3)
    ]
    numbers = np.stack(sequences)
    assert numbers.shape == (3 * len(Stream), 2, 200, 3)
    assert len(np.unique(numbers)) == numbers.size


# --- pieces of one sequence -------------------------------------------------------------------


@both_types
@pytest.mark.parametrize(
    ("num_samples", "width"), [(1, 1), (1, 3), (3, 1), (2, 3), (5, 1), (4, 2), (7, 5)]
)
def test_a_piece_drawn_alone_is_that_of_a_longer_draw(
    dtype: Any, num_samples: int, width: int
) -> None:
    # Of one sample and one output, positions 0 to 8 lie at every place of a generator's block.
    sizes: dict[str, Any] = {"num_samples": num_samples, "width": width, "dtype": dtype}
    whole = _draw(first=0, num_rows=16, **sizes)
    for first in range(9):
        for num_rows in (1, 2, 5, 7):
            np.testing.assert_array_equal(
                _draw(first=first, num_rows=num_rows, **sizes),
                whole[:, first : first + num_rows],
                err_msg=f"first {first}, {num_rows} rows",
            )


def test_a_long_draw_agrees_with_its_far_end() -> None:
    # Long enough for TensorFlow to divide it among threads.
    count = 40_001
    whole = _draw(first=0, num_rows=count)
    np.testing.assert_array_equal(_draw(first=count - 3, num_rows=3), whole[:, -3:])


@both_types
@pytest.mark.parametrize("first", [2**31 - 3, 2**32 - 3, 2**40 + 1])
def test_far_positions_are_positions_like_others(dtype: Any, first: int) -> None:
    whole = _draw(first=first, num_rows=8, dtype=dtype)
    assert np.all(np.isfinite(whole))
    assert len(np.unique(whole)) == whole.size
    behind = whole[:, 5:]  # 2**31 and 2**32
    np.testing.assert_array_equal(_draw(first=first + 5, num_rows=3, dtype=dtype), behind)
    wrapped = (first + 5) % 2**31
    assert np.all(behind != _draw(first=wrapped, num_rows=3, dtype=dtype))


@both_types
def test_no_rows_draw_no_numbers(dtype: Any) -> None:
    numbers = _draw(num_rows=0, dtype=dtype)
    assert numbers.shape == (2, 0, 3)
    assert numbers.dtype == dtype.as_numpy_dtype


def test_a_traced_draw_follows_first_and_rows_without_a_second_trace() -> None:
    noise = SamplingNoise(SEED)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def draw(positions: tf.Tensor) -> tf.Tensor:
        return noise.at(Stream.TRAINING, positions, 2).normal(1, 3, tf.float64)

    for first, num_rows in ((0, B), (1, B), (2**40, B), (7, 3), (0, 0)):
        drawn = draw(tf.range(first, first + num_rows, dtype=tf.int64))
        np.testing.assert_array_equal(drawn, _draw(first=first, num_rows=num_rows))
    assert draw.experimental_get_tracing_count() == 1


# --- numbers that all rows share --------------------------------------------------------------


def _shared(
    S: int = 32,
    width: int = 3,
    *,
    seed: int = SEED,
    stream: Stream = Stream.PREDICTION,
    layer: int = 1,
    dtype: Any = tf.float64,
) -> FloatArray:
    """[S, Q]"""
    numbers = np.asarray(SamplingNoise(seed).shared(stream, S).normal(layer, width, dtype))
    assert numbers.shape == (S, 1, width)
    assert numbers.dtype == dtype.as_numpy_dtype
    return numbers[:, 0]


@both_types
def test_shared_numbers_are_a_function_of_their_key(dtype: Any) -> None:
    numbers = _shared(dtype=dtype)
    np.testing.assert_array_equal(numbers, _shared(dtype=dtype))
    for change in (
        {"seed": SEED + 1},
        {"seed": SEED + 2**64},
        {"stream": Stream.EVALUATION},
        {"layer": 2},
    ):
        assert np.mean(numbers != _shared(dtype=dtype, **change)) > 0.9, change
    for S in (1, 2, 20, 1000):  # any number of samples
        assert np.all(np.isfinite(_shared(S, 30, dtype=dtype)))


def test_shared_numbers_are_standard_normal_and_evenly_spread() -> None:
    numbers = _shared(1024, 8)
    # One in every cell of 1/1024 in probability: the statistic of independent ones is 30 times it.
    cells = np.sort(np.floor(scipy.stats.norm.cdf(numbers) * 1024), axis=0)
    np.testing.assert_array_equal(cells, np.tile(np.arange(1024)[:, None], (1, 8)))
    # Over seeds, a mean of 32 has less than a fiftieth of the variance of that of 32 independent
    # ones, and no bias (four standard errors).
    means = np.array([_shared(seed=seed).mean(axis=0) for seed in range(200)])
    assert np.max(np.var(means, axis=0)) < 0.02 / 32
    assert np.max(np.abs(means.mean(axis=0))) < 4 * np.sqrt(0.02 / 32 / 200)


def test_layers_of_shared_numbers_are_independent() -> None:
    products = np.array(
        [_shared(seed=seed, layer=0) * _shared(seed=seed, layer=1) for seed in range(200)]
    )
    count = products.shape[0] * products.shape[1]
    assert np.max(np.abs(products.mean(axis=(0, 1)))) < 4 / np.sqrt(count)  # four standard errors


# --- distributions ----------------------------------------------------------------------------


def test_numbers_are_standard_normal() -> None:
    count = 50_000
    numbers = _draw(num_rows=count, num_samples=1, width=1).ravel()
    # The Kolmogorov-Smirnov statistic exceeds 1.63 / sqrt(n) once in a hundred keys; this is one.
    assert scipy.stats.kstest(numbers, scipy.stats.norm().cdf).statistic < 1.63 / np.sqrt(count)
    # Four standard errors of a standard normal's mean and variance.
    assert abs(numbers.mean()) < 4 / np.sqrt(count)
    assert abs(numbers.var() - 1) < 4 * np.sqrt(2 / count)


def _assert_uncorrelated(columns: FloatArray) -> None:
    """:param columns: [count, C]"""
    count, C = columns.shape
    correlations = np.corrcoef(columns, rowvar=False)[np.triu_indices(C, 1)]
    assert np.all(np.abs(correlations) < 4 / np.sqrt(count))  # four standard errors


def test_samples_and_rows_are_uncorrelated() -> None:
    numbers = _draw(num_rows=20_000, num_samples=2, width=2)
    _assert_uncorrelated(np.concatenate([*numbers, np.roll(numbers[0], 1, axis=0)], axis=1))


def test_layers_and_streams_are_uncorrelated() -> None:
    sizes = {"num_rows": 20_000, "num_samples": 1, "width": 1}
    draws = [_draw(stream, layer, **sizes)[0] for stream in Stream for layer in range(3)]
    _assert_uncorrelated(np.concatenate(draws, axis=1))


KNOWN = {
    "float64": [-1.14276837, 1.15984997, -0.97014924, 1.40296949],
    "float32": [1.21654773, -1.33163035, 0.67372292, -1.51373553],
}


@both_types
def test_known_numbers_of_one_key_stay(dtype: Any) -> None:
    """A checkpoint's run continues with the numbers that it began with, in every version."""
    numbers = _draw(seed=7 * 2**32 + 3, first=5, num_rows=2, layer=1, width=1, dtype=dtype)
    # The digits written here, of numbers of size 1; float32 has seven of them.
    digits = 1e-8 if dtype == tf.float64 else 1e-6
    assert numbers.ravel() == pytest.approx(KNOWN[dtype.name], abs=digits)
