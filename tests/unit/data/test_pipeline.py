import itertools
from typing import Any

import numpy as np
import psutil
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from natdgp.data.pipeline import Wrap, evaluation_dataset, training_dataset, with_names
from natdgp.data.prepare import Rows

Batch = dict[str, np.ndarray[Any, Any]]


def numbered(num_rows: int) -> Rows:
    """Rows that tell which they are: row i has inputs (i, -i) and target 10 i."""
    i = np.arange(num_rows, dtype=np.float64)[:, None]
    return Rows(np.hstack([i, -i]), 10 * i)


def take(dataset: tf.data.Dataset, count: int) -> list[Batch]:
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def training(
    num_rows: int, batch: int, steps: int, *, seed: int = 0, start: int = 0, **shards: Any
) -> list[Batch]:
    dataset = training_dataset(
        numbered(num_rows), global_batch_size=batch, seed=seed, start_step=start, **shards
    )
    return take(dataset, steps)


def shard(num_shards: int, rank: int) -> Wrap:
    return lambda dataset: dataset.shard(num_shards, rank)


def order(batches: list[Batch]) -> list[int]:
    return [int(row) for batch in batches for row in batch["inputs"][:, 0]]


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys() == {"inputs", "targets", "positions", "rows"}
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def together(shards: list[list[Batch]]) -> list[Batch]:
    """The batches of all shards, step by step, one shard's rows after the other's."""
    return [
        {name: np.concatenate([batch[name] for batch in step]) for name in step[0]}
        for step in zip(*shards, strict=True)
    ]


@settings(max_examples=25, deadline=None)
@given(
    num_rows=st.integers(1, 40),
    batch=st.integers(1, 50),
    seed=st.integers(0, 2**80),
    first_epoch=st.integers(0, 3),
)
def test_every_epoch_visits_every_row_once(
    num_rows: int, batch: int, seed: int, first_epoch: int
) -> None:
    epochs = first_epoch + 2
    rows = order(training(num_rows, batch, -(-epochs * num_rows // batch), seed=seed))
    for epoch in range(epochs):
        visited = rows[epoch * num_rows : (epoch + 1) * num_rows]
        assert sorted(visited) == list(range(num_rows))


def test_inputs_targets_and_positions_belong_together() -> None:
    batches = training(30, 8, 5, start=2)
    for step, batch in enumerate(batches, start=2):
        np.testing.assert_array_equal(batch["positions"], np.arange(8 * step, 8 * (step + 1)))
        np.testing.assert_array_equal(batch["inputs"][:, 1], -batch["inputs"][:, 0])
        np.testing.assert_array_equal(batch["targets"], 10 * batch["inputs"][:, :1])
        assert batch["positions"].dtype == np.int64


@pytest.mark.parametrize("start", [1, 7, 20])
def test_starting_at_a_step_equals_running_to_it(start: int) -> None:
    assert_same(training(30, 8, 5, start=start), training(30, 8, start + 5)[start:])


@pytest.mark.parametrize("num_rows", [30, 5])
@pytest.mark.parametrize("num_shards", [2, 3, 4])
def test_shards_together_give_the_batch_of_one(num_shards: int, num_rows: int) -> None:
    shards = [
        training(num_rows, 12, 6, start=3, num_shards=num_shards, wrap=shard(num_shards, rank))
        for rank in range(num_shards)
    ]
    assert {len(batch["positions"]) for batches in shards for batch in batches} == {
        12 // num_shards
    }
    assert_same(together(shards), training(num_rows, 12, 6, start=3))


def test_a_far_step_is_reached_at_once_by_every_shard() -> None:
    for rank in range(2):
        (batch,) = training(30, 8, 1, start=10**12, num_shards=2, wrap=shard(2, rank))
        np.testing.assert_array_equal(batch["positions"], 8 * 10**12 + 4 * rank + np.arange(4))


def test_batches_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="global_batch_size 10 is not a multiple of 4 slots"):
        training(30, 10, 1, num_shards=4)


@pytest.mark.parametrize("other", [2, 1 + 2**32, 1 + 2**64])
def test_all_bits_of_the_seed_count(other: int) -> None:
    assert order(training(100, 100, 1, seed=1)) != order(training(100, 100, 1, seed=other))


def test_rows_are_mixed_well() -> None:
    # Ranks of a random permutation of N = 1000 correlate with their places by about N^-1/2 = 0.03.
    for epoch in training(1000, 1000, 3):
        assert abs(np.corrcoef(epoch["inputs"][:, 0], np.arange(1000))[0, 1]) < 0.15


def test_the_order_is_pinned() -> None:
    # A checkpoint resumes into this order: should the cipher change, old checkpoints are void.
    first, second = training(10, 10, 2, seed=2**40)
    assert order([first]) == [1, 5, 6, 4, 8, 3, 2, 9, 0, 7]
    assert order([second]) == [7, 4, 6, 3, 1, 5, 2, 9, 8, 0]


def test_repeating_changes_nothing() -> None:
    dataset = training_dataset(numbered(30), global_batch_size=8, seed=0, start_step=0)
    assert_same(take(dataset.repeat(), 10), take(dataset, 10))


def evaluations(num_rows: int, batch: int, num_shards: int) -> list[list[Batch]]:
    """The batches of every shard."""
    return [
        take(
            evaluation_dataset(
                numbered(num_rows),
                global_batch_size=batch,
                num_shards=num_shards,
                wrap=shard(num_shards, rank),
            ),
            1000,
        )
        for rank in range(num_shards)
    ]


@pytest.mark.parametrize(
    ("num_rows", "batch", "num_shards"),
    [
        (203, 16, 1),
        (203, 16, 2),
        (203, 16, 4),
        (203, 18, 4),  # 4 rows a shard: 18 is no multiple
        (192, 16, 4),  # the last batches are whole
        (3, 16, 4),
        (3, 4, 4),
        (11, 8, 13),  # less than a row a shard
        (11, 8, 3),
    ],
)
def test_evaluation_covers_each_row_once_over_all_shards(
    num_rows: int, batch: int, num_shards: int
) -> None:
    shards = evaluations(num_rows, batch, num_shards)
    for batches in shards:
        rows = order(batches)
        assert rows == sorted(rows)
        assert len(batches) == len(shards[0])
    assert order(together(shards)) == list(range(num_rows))
    for part in itertools.chain(*shards):
        assert len(part["positions"]) <= max(1, batch // num_shards)
        assert part["inputs"].shape == (len(part["positions"]), 2)
        assert part["targets"].shape == (len(part["positions"]), 1)
        assert part["positions"].dtype == np.int64
        np.testing.assert_array_equal(part["inputs"][:, 0], part["positions"])
        np.testing.assert_array_equal(part["targets"][:, 0], 10 * part["positions"])


@pytest.mark.parametrize(
    ("num_rows", "num_shards", "sizes"),
    [
        (203, 1, [[16] * 12 + [11]]),
        (203, 2, [[8] * 13, [8] * 12 + [3]]),
        (203, 4, [[4] * 13, [4] * 13, [4] * 12 + [3], [4] * 12 + [0]]),
        (3, 4, [[3], [0], [0], [0]]),
    ],
)
def test_only_the_last_evaluation_batches_have_fewer_rows_or_none(
    num_rows: int, num_shards: int, sizes: list[list[int]]
) -> None:
    shards = evaluations(num_rows, 16, num_shards)
    assert [[len(part["positions"]) for part in batches] for batches in shards] == sizes


def test_evaluation_of_no_rows_is_empty() -> None:
    assert take(evaluation_dataset(numbered(0), global_batch_size=4), 1) == []


def test_training_and_evaluation_have_elements_of_one_structure() -> None:
    rows = numbered(10)
    train = training_dataset(rows, global_batch_size=4, seed=0, start_step=0).element_spec
    evaluation = evaluation_dataset(rows, global_batch_size=4).element_spec
    assert train["inputs"].shape == (4, 2)
    for name, spec in train.items():
        assert evaluation[name].is_compatible_with(tf.zeros(spec.shape, spec.dtype))


def test_iterators_share_one_copy_of_the_rows() -> None:
    def resident() -> float:
        return float(psutil.Process().memory_info().rss) / 2**20

    rows = Rows(np.ones((2**20, 8)), np.ones((2**20, 1)))  # 72 MB
    dataset = training_dataset(rows, global_batch_size=8, seed=0, start_step=0)
    iterators = [iter(dataset)]
    next(iterators[0])
    before = resident()
    for _ in range(4):
        iterators.append(iter(dataset))
        next(iterators[-1])
    assert resident() - before < 36


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["targets", "inputs"], {"inputs", "targets"}),
        (None, {"inputs", "targets", "positions"}),
        (["inputs", "others"], {"inputs", "targets", "positions"}),
    ],
)
def test_a_model_of_named_inputs_gets_no_others(names: list[str] | None, kept: set[str]) -> None:
    batch = {"inputs": [1.0], "targets": [2.0], "positions": [3]}
    batches = with_names(tf.data.Dataset.from_tensors(batch), names)
    assert batches.element_spec.keys() == kept
    assert next(iter(batches))["inputs"] == [1.0]
