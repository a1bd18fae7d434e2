from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from natdgp.models import SamplingNoise, Stream
from tests.conftest import FloatArray

SEED = 11
B = 10


def _draw(
    kind: str = "normal",
    *,
    seed: int = SEED,
    stream: Stream = Stream.TRAINING,
    step: int = 4,
    layer: int = 1,
    rows: Sequence[int] = range(B),
    num_rows: int = B,
    num_samples: int = 2,
    width: int = 3,
    dtype: Any = tf.float64,
) -> FloatArray:
    """[S, n, Q]"""
    noise = SamplingNoise(seed)
    like = tf.zeros([len(rows), width], dtype)
    with noise.at(
        stream=stream,
        step=step,
        rows=tf.constant(list(rows), tf.int64),
        num_rows=num_rows,
        num_samples=num_samples,
    ):
        numbers = (
            noise.normal(layer, like)
            if kind == "normal"
            else noise.gamma(layer, like, concentration=2.0)
        )
    return np.asarray(numbers)


both_kinds = pytest.mark.parametrize("kind", ["normal", "gamma"])


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
        {"step": 5},
        {"layer": 2},
    ],
)
def test_each_part_of_the_key_changes_every_number(kind: str, change: dict[str, Any]) -> None:
    assert np.all(_draw(kind) != _draw(kind, **change))


@both_kinds
def test_rows_samples_and_outputs_have_numbers_of_their_own(kind: str) -> None:
    numbers = _draw(kind)
    assert numbers.shape == (2, B, 3)
    assert len(np.unique(numbers)) == numbers.size


@both_kinds
def test_step_layer_and_stream_do_not_stand_in_for_each_other(kind: str) -> None:
    keys = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    drawn = [_draw(kind, stream=Stream(a), step=b, layer=c).flat[0] for a, b, c in keys]
    assert len(set(drawn)) == len(keys)


@both_kinds
@pytest.mark.parametrize("high_bits", [2**32, 2**33, 5 * 2**32, 2**62])
def test_seeds_that_agree_in_their_low_32_bits_differ(kind: str, high_bits: int) -> None:
    assert np.all(_draw(kind) != _draw(kind, seed=SEED + high_bits))


@both_kinds
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_a_rank_draws_its_rows_of_the_global_draw(kind: str, num_ranks: int) -> None:
    everyone = _draw(kind)
    for rank in range(num_ranks):
        own = range(rank, B, num_ranks)
        np.testing.assert_array_equal(_draw(kind, rows=own), everyone[:, rank::num_ranks])


@both_kinds
def test_rows_may_come_in_any_order(kind: str) -> None:
    np.testing.assert_array_equal(_draw(kind, rows=[7, 0, 3]), _draw(kind)[:, [7, 0, 3]])


@both_kinds
def test_a_smaller_last_batch_draws_the_first_rows(kind: str) -> None:
    np.testing.assert_array_equal(_draw(kind, rows=range(4)), _draw(kind)[:, :4])


def test_a_second_draw_inside_a_draw_is_refused() -> None:
    noise = SamplingNoise(SEED)
    draw: dict[str, Any] = {
        "stream": Stream.TRAINING,
        "step": 0,
        "rows": tf.range(2),
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
        with noise.at(stream=Stream.TRAINING, step=0, rows=tf.range(2), num_rows=2, num_samples=5):
            assert noise.num_samples == 5
            raise ZeroDivisionError

    assert noise.num_samples == 1
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
        assert noise.num_samples == 1


@pytest.mark.parametrize("num_rows", [4, 50])
def test_outside_of_a_draw_normal_numbers_are_those_of_prediction_batch_0(num_rows: int) -> None:
    outside = SamplingNoise(SEED).normal(1, tf.zeros([4, 3], tf.float64))
    inside = _draw(
        stream=Stream.PREDICTION, step=0, rows=range(4), num_rows=num_rows, num_samples=1
    )
    assert outside.shape == (1, 4, 3)
    np.testing.assert_array_equal(outside, inside)


def test_outside_of_a_draw_gamma_numbers_are_refused() -> None:
    with pytest.raises(RuntimeError, match="only inside `at`"):
        SamplingNoise(SEED).gamma(1, tf.zeros([4, 3], tf.float64), concentration=2.0)


def test_a_traced_draw_follows_the_step_without_a_second_trace() -> None:
    noise = SamplingNoise(SEED)
    step = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def draw(rows: tf.Tensor) -> tf.Tensor:
        with noise.at(stream=Stream.TRAINING, step=step, rows=rows, num_rows=B, num_samples=2):
            return noise.normal(1, tf.zeros([B, 3], tf.float64))

    by_step = []
    for number in range(3):
        step.assign(number)
        by_step.append(draw(tf.range(B, dtype=tf.int64)).numpy())
        np.testing.assert_array_equal(by_step[-1], _draw(step=number))
    assert draw.experimental_get_tracing_count() == 1
    assert np.all(by_step[0] != by_step[1])


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
def test_numbers_have_the_type_and_width_asked_for(dtype: tf.DType) -> None:
    for kind in ("normal", "gamma"):
        numbers = _draw(kind, dtype=dtype, width=5)
        assert numbers.dtype == dtype.as_numpy_dtype
        assert numbers.shape == (2, B, 5)


@pytest.mark.parametrize(
    ("kind", "distribution"),
    [("normal", scipy.stats.norm()), ("gamma", scipy.stats.gamma(2.0))],
)
def test_numbers_have_the_distribution_they_claim(kind: str, distribution: Any) -> None:
    count = 50_000
    numbers = _draw(kind, rows=range(count), num_rows=count, num_samples=1, width=1).ravel()
    # The Kolmogorov-Smirnov statistic exceeds 1.63 / sqrt(n) once in a hundred keys; this is one.
    assert scipy.stats.kstest(numbers, distribution.cdf).statistic < 1.63 / np.sqrt(count)
    if kind == "normal":
        # Four standard errors of a standard normal's mean and variance.
        assert abs(numbers.mean()) < 4 / np.sqrt(count)
        assert abs(numbers.var() - 1) < 4 * np.sqrt(2 / count)


def test_samples_and_rows_are_uncorrelated() -> None:
    count = 20_000
    numbers = _draw(rows=range(count), num_rows=count, num_samples=2, width=2)
    columns = np.concatenate([numbers[0], numbers[1], np.roll(numbers[0], 1, axis=0)], axis=1)
    correlations = np.corrcoef(columns, rowvar=False)[np.triu_indices(columns.shape[1], 1)]
    assert np.all(np.abs(correlations) < 4 / np.sqrt(count))  # four standard errors


KNOWN = {
    "normal": [0.75354645, -0.52062084, -0.32916093, -0.57865237],
    "gamma": [2.98979891, 0.72173643, 0.16357921, 1.96588472],
}


@both_kinds
def test_known_numbers_of_one_key_stay(kind: str) -> None:
    """A checkpoint's run continues with the numbers that it began with, in every version."""
    numbers = _draw(kind, seed=7 * 2**32 + 3, step=5, layer=1, rows=[0, 2], num_rows=3, width=1)
    assert numbers.ravel() == pytest.approx(KNOWN[kind], abs=1e-8)  # the digits written here
