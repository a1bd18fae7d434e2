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
    kind: str = "normal",
    *,
    seed: int = SEED,
    stream: Stream = Stream.TRAINING,
    layer: int = 1,
    first: int = FIRST,
    num_rows: int = B,
    num_samples: int = 2,
    width: int = 3,
    dtype: Any = tf.float64,
) -> FloatArray:
    """[S, n, Q]"""
    noise = SamplingNoise(seed)
    like = tf.zeros([num_rows, width], dtype)
    with noise.at(stream=stream, first=first, num_rows=num_rows, num_samples=num_samples):
        numbers = (
            noise.normal(layer, like)
            if kind == "normal"
            else noise.gamma(layer, like, concentration=2.0)
        )
    return np.asarray(numbers)


both_kinds = pytest.mark.parametrize("kind", ["normal", "gamma"])
both_types = pytest.mark.parametrize("dtype", [tf.float64, tf.float32], ids=lambda d: d.name)


@both_kinds
def test_equal_keys_give_equal_numbers(kind: str) -> None:
    np.testing.assert_array_equal(_draw(kind), _draw(kind))


@both_kinds
@pytest.mark.parametrize(
    "change",
    [
        {"seed": SEED + 1},
        {"stream": Stream.EVALUATION},
        {"stream": Stream.PREDICTION},
        {"layer": 2},
        {"first": FIRST + B},
        {"first": FIRST + 1},  # the rows that both draws have are at other places
    ],
    ids=str,
)
def test_each_part_of_the_key_changes_every_number(kind: str, change: dict[str, Any]) -> None:
    assert np.all(_draw(kind) != _draw(kind, **change))


@both_kinds
@pytest.mark.parametrize("high_bits", [2**32, 2**33, 5 * 2**32, 2**62, 2**64, 2**100])
def test_seeds_that_agree_in_their_low_bits_differ(kind: str, high_bits: int) -> None:
    assert np.all(_draw(kind) != _draw(kind, seed=SEED + high_bits))


@both_kinds
def test_rows_samples_and_outputs_have_numbers_of_their_own(kind: str) -> None:
    numbers = _draw(kind)
    assert numbers.shape == (2, B, 3)
    assert len(np.unique(numbers)) == numbers.size


@both_kinds
def test_first_layer_and_stream_do_not_stand_in_for_each_other(kind: str) -> None:
    keys = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    drawn = [_draw(kind, stream=Stream(a), first=b, layer=c).flat[0] for a, b, c in keys]
    assert len(set(drawn)) == len(keys)


@both_kinds
def test_sequences_have_no_number_in_common(kind: str) -> None:
    sequences = [
        _draw(kind, stream=stream, layer=layer, first=0, num_rows=200)
        for stream in Stream
        for layer in range(3)
    ]
    numbers = np.concatenate([sequence.ravel() for sequence in sequences])
    assert len(np.unique(numbers)) == numbers.size


# --- pieces of one sequence -------------------------------------------------------------------


@both_kinds
@both_types
@pytest.mark.parametrize(
    ("num_samples", "width"), [(1, 1), (1, 3), (3, 1), (2, 3), (5, 1), (4, 2), (7, 5)]
)
def test_a_piece_drawn_alone_is_that_of_a_longer_draw(
    kind: str, dtype: Any, num_samples: int, width: int
) -> None:
    # Of one sample and one output, positions 0 to 8 lie at every place of a generator's block.
    sizes: dict[str, Any] = {"num_samples": num_samples, "width": width, "dtype": dtype}
    whole = _draw(kind, first=0, num_rows=16, **sizes)
    for first in range(9):
        for num_rows in (1, 2, 5, 7):
            np.testing.assert_array_equal(
                _draw(kind, first=first, num_rows=num_rows, **sizes),
                whole[:, first : first + num_rows],
                err_msg=f"first {first}, {num_rows} rows",
            )


@both_kinds
@both_types
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_ranks_draw_together_what_one_draws(kind: str, dtype: Any, num_ranks: int) -> None:
    rows = 5  # of a rank
    everyone = _draw(kind, num_rows=num_ranks * rows, dtype=dtype)
    by_rank = [
        _draw(kind, first=FIRST + rank * rows, num_rows=rows, dtype=dtype)
        for rank in range(num_ranks)
    ]
    np.testing.assert_array_equal(np.concatenate(by_rank, axis=1), everyone)


@both_kinds
def test_a_long_draw_agrees_with_its_far_end(kind: str) -> None:
    # Long enough for TensorFlow to divide it among threads.
    count = 40_001
    whole = _draw(kind, first=0, num_rows=count)
    np.testing.assert_array_equal(_draw(kind, first=count - 3, num_rows=3), whole[:, -3:])


@both_kinds
@both_types
@pytest.mark.parametrize("first", [2**31 - 3, 2**32 - 3, 2**40 + 1])
def test_far_positions_are_positions_like_others(kind: str, dtype: Any, first: int) -> None:
    whole = _draw(kind, first=first, num_rows=8, dtype=dtype)
    assert np.all(np.isfinite(whole))
    assert len(np.unique(whole)) == whole.size
    behind = whole[:, 5:]  # 2**31 and 2**32
    np.testing.assert_array_equal(_draw(kind, first=first + 5, num_rows=3, dtype=dtype), behind)
    wrapped = (first + 5) % 2**31
    assert np.all(behind != _draw(kind, first=wrapped, num_rows=3, dtype=dtype))


@both_kinds
@both_types
@pytest.mark.parametrize("first", [0, 3])
def test_no_rows_draw_no_numbers(kind: str, dtype: Any, first: int) -> None:
    numbers = _draw(kind, first=first, num_rows=0, dtype=dtype)
    assert numbers.shape == (2, 0, 3)
    assert numbers.dtype == dtype.as_numpy_dtype


@both_types
def test_numbers_have_the_type_and_width_asked_for(dtype: Any) -> None:
    for kind in ("normal", "gamma"):
        numbers = _draw(kind, dtype=dtype, width=5)
        assert numbers.dtype == dtype.as_numpy_dtype
        assert numbers.shape == (2, B, 5)


def test_the_draws_rows_count_where_like_holds_all_samples() -> None:
    noise = SamplingNoise(SEED)
    with noise.at(stream=Stream.TRAINING, first=FIRST, num_rows=B, num_samples=2):
        numbers = noise.normal(1, tf.zeros([2 * B, 3], tf.float64))
    np.testing.assert_array_equal(numbers, _draw())


# --- the context ------------------------------------------------------------------------------


def test_a_second_draw_inside_a_draw_is_refused() -> None:
    noise = SamplingNoise(SEED)
    draw: dict[str, Any] = {
        "stream": Stream.TRAINING,
        "first": 0,
        "num_rows": 2,
        "num_samples": 1,
    }
    with (
        noise.at(**draw),
        pytest.raises(RuntimeError, match="already under way"),
        noise.at(**draw),
    ):
        pass


def test_a_draw_ends_with_its_context_even_if_that_fails() -> None:
    noise = SamplingNoise(SEED)

    def fail() -> None:
        with noise.at(stream=Stream.TRAINING, first=0, num_rows=2, num_samples=5):
            assert noise.num_samples == 5
            raise ZeroDivisionError

    assert noise.num_samples == 1
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
        assert noise.num_samples == 1


@pytest.mark.parametrize("num_rows", [4, 50])
def test_outside_of_a_draw_normal_numbers_are_the_first_of_prediction(num_rows: int) -> None:
    outside = SamplingNoise(SEED).normal(1, tf.zeros([4, 3], tf.float64))
    inside = _draw(stream=Stream.PREDICTION, first=0, num_rows=num_rows, num_samples=1)
    assert outside.shape == (1, 4, 3)
    np.testing.assert_array_equal(outside, inside[:, :4])


def test_outside_of_a_draw_gamma_numbers_are_refused() -> None:
    with pytest.raises(RuntimeError, match="only inside `at`"):
        SamplingNoise(SEED).gamma(1, tf.zeros([4, 3], tf.float64), concentration=2.0)


@both_kinds
def test_a_traced_draw_follows_first_and_rows_without_a_second_trace(kind: str) -> None:
    noise = SamplingNoise(SEED)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def draw(positions: tf.Tensor) -> tf.Tensor:
        with noise.at(
            stream=Stream.TRAINING,
            first=tf.reduce_sum(positions[:1]),
            num_rows=tf.size(positions),
            num_samples=2,
        ):
            like = tf.zeros([tf.size(positions), 3], tf.float64)
            if kind == "normal":
                return noise.normal(1, like)
            return noise.gamma(1, like, concentration=2.0)

    for first, num_rows in ((0, B), (1, B), (2**40, B), (7, 3), (0, 0)):
        drawn = draw(tf.range(first, first + num_rows, dtype=tf.int64))
        np.testing.assert_array_equal(drawn, _draw(kind, first=first, num_rows=num_rows))
    assert draw.experimental_get_tracing_count() == 1


# --- distributions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "distribution"),
    [("normal", scipy.stats.norm()), ("gamma", scipy.stats.gamma(2.0))],
)
def test_numbers_have_the_distribution_they_claim(kind: str, distribution: Any) -> None:
    count = 50_000
    numbers = _draw(kind, num_rows=count, num_samples=1, width=1).ravel()
    # The Kolmogorov-Smirnov statistic exceeds 1.63 / sqrt(n) once in a hundred keys; this is one.
    assert scipy.stats.kstest(numbers, distribution.cdf).statistic < 1.63 / np.sqrt(count)
    if kind == "normal":
        # Four standard errors of a standard normal's mean and variance.
        assert abs(numbers.mean()) < 4 / np.sqrt(count)
        assert abs(numbers.var() - 1) < 4 * np.sqrt(2 / count)


def test_samples_and_rows_are_uncorrelated() -> None:
    count = 20_000
    numbers = _draw(num_rows=count, num_samples=2, width=2)
    columns = np.concatenate([numbers[0], numbers[1], np.roll(numbers[0], 1, axis=0)], axis=1)
    correlations = np.corrcoef(columns, rowvar=False)[np.triu_indices(columns.shape[1], 1)]
    assert np.all(np.abs(correlations) < 4 / np.sqrt(count))  # four standard errors


def test_layers_and_streams_are_uncorrelated() -> None:
    count = 20_000
    columns = [
        _draw(stream=stream, layer=layer, num_rows=count, num_samples=1, width=1).ravel()
        for stream in Stream
        for layer in range(3)
    ]
    correlations = np.corrcoef(columns)[np.triu_indices(len(columns), 1)]
    assert np.all(np.abs(correlations) < 4 / np.sqrt(count))  # four standard errors


KNOWN = {
    ("normal", "float64"): [-1.14276837, 1.15984997, -0.97014924, 1.40296949],
    ("normal", "float32"): [1.21654773, -1.33163035, 0.67372292, -1.51373553],
    ("gamma", "float64"): [4.30173255, 2.53994517, 0.74997311, 3.09757205],
    ("gamma", "float32"): [4.30173254, 2.53994513, 0.74997312, 3.09757209],
}


@both_kinds
@both_types
def test_known_numbers_of_one_key_stay(kind: str, dtype: Any) -> None:
    """A checkpoint's run continues with the numbers that it began with, in every version."""
    numbers = _draw(kind, seed=7 * 2**32 + 3, first=5, num_rows=2, layer=1, width=1, dtype=dtype)
    # The digits written here, of numbers of size 1; float32 has seven of them.
    digits = 1e-8 if dtype == tf.float64 else 1e-6
    assert numbers.ravel() == pytest.approx(KNOWN[kind, dtype.name], abs=digits)
