"""One step, whatever its kind: alone, over ranks, over several batches, shared out over ranks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf

from natdgp.distributed.reducer import OneProcess, Reducer, gather_on_first_rank
from natdgp.training.model import DeepGPModel
from natdgp.training.steppers import Aggregation
from tests.conftest import FloatArray
from tests.unit.training.ranks import together
from tests.unit.training.small_models import (
    B,
    all_equal,
    batch_of,
    small_deep_gp,
    small_model,
    state,
    values,
)

K = 3
SAME: dict[str, Any] = {"rtol": 0, "atol": 1e-10}
"""Sums over the same rows in another order."""


def _train(model: DeepGPModel, *ends: int) -> list[float]:
    """The losses of batches that end before these positions, from position 0 on."""
    starts = (0, *ends[:-1])
    pieces = zip(starts, ends, strict=True)
    return [float(model.train_step(batch_of(range(*piece)))["loss"]) for piece in pieces]


def _assert_same(some: list[FloatArray], other: list[FloatArray]) -> None:
    for one, another in zip(some, other, strict=True):
        np.testing.assert_allclose(one, another, **SAME)


@pytest.mark.parametrize("blocks", [(6, 6), (4, 4, 4), (5, 1, 6)], ids=str)
@pytest.mark.parametrize("placement", ["replicated", "sharded"])
def test_ranks_train_together_what_one_trains(blocks: tuple[int, ...], placement: Any) -> None:
    def build(**others: Any) -> DeepGPModel:
        return small_model((0, 1), deep_gp=small_deep_gp(2), S=2, **others)

    alone = build()
    start = state(alone)
    expected = _train(alone, B, 2 * B)
    ends = np.cumsum(blocks)

    def train(reducer: Reducer) -> tuple[list[float], list[FloatArray]]:
        model = build(reducer=reducer, placement=placement)
        first, last = ends[reducer.rank] - blocks[reducer.rank], ends[reducer.rank]
        losses = [
            float(model.train_step(batch_of(range(t * B + first, t * B + last)))["loss"])
            for t in (0, 1)
        ]
        return losses, state(model)

    by_rank = together(len(blocks), train)
    for losses, held in by_rank:
        assert losses == by_rank[0][0] == pytest.approx(expected, rel=1e-10)
        assert all_equal(held, by_rank[0][1])
        _assert_same(held, state(alone))
    assert not any(np.array_equal(*pair) for pair in zip(start, state(alone), strict=True))


def test_all_gradients_are_added_up_once_before_any_optimizer_sees_them() -> None:
    class Zeros(OneProcess):
        size = 2
        asked: ClassVar[list[tf.Tensor]] = []

        def total(self, tensor: tf.Tensor) -> tf.Tensor:
            self.asked.append(tensor)
            return tf.concat([0 * tensor[:-1], tensor[-1:]], axis=0)

    model = small_model(reducer=Zeros())
    before = values(model.deep_gp)
    metrics = model.train_step(batch_of())
    (vector,) = Zeros.asked
    # All gradients, the loss and the number of examples.
    assert len(vector) == sum(v.shape.num_elements() for v in model.trainable_variables) + 2
    assert float(vector[-1]) == B
    assert float(metrics["loss"]) == 0.0  # the one that was received
    for name, value in values(model.deep_gp).items():
        # Only the rounding of natural parameters and back is left.
        np.testing.assert_allclose(value, before[name], rtol=0, atol=1e-12, err_msg=name)


# --- several batches a step -------------------------------------------------------------------


@pytest.mark.parametrize("ends", [(B, 2 * B, 3 * B), (4, 6, 18)], ids=str)
def test_k_batches_equal_one_of_all_their_rows(ends: tuple[int, ...]) -> None:
    several, one = small_model(aggregation=Aggregation(K)), small_model()
    states = [state(several)]
    for start, end in zip((0, *ends[:-1]), ends, strict=True):
        metrics = several.train_step(batch_of(range(start, end)))
        states.append(state(several))
    assert all_equal(states[0], states[2])  # no step before the last of K batches
    assert not all_equal(states[2], states[3])
    assert int(metrics["natgrad_taken"]) == 3  # one for each latent GP
    assert int(several.optimizer.iterations) == 1
    assert int(several.step) == K
    _train(one, ends[-1])
    _assert_same(states[3], state(one))


def test_summed_gradients_are_k_times_the_averaged() -> None:
    summed = small_model(aggregation=Aggregation(K, average=False), gamma=0.02)
    averaged = small_model(aggregation=Aggregation(K), gamma=K * 0.02)
    for model in (summed, averaged):
        _train(model, B, 2 * B, 3 * B)
    ours, theirs = (model.deep_gp.f_layers[-1] for model in (summed, averaged))
    # A natural-gradient step is gamma times the gradient in natural parameters.
    np.testing.assert_allclose(ours.q_mu, theirs.q_mu, **SAME)
    np.testing.assert_allclose(ours.q_sqrt, theirs.q_sqrt, **SAME)
    assert np.max(np.abs(ours.q_mu - small_model().deep_gp.f_layers[-1].q_mu)) > 1e-3


def test_two_ranks_aggregate_what_one_does_and_a_checkpoint_between_changes_nothing() -> None:
    alone = small_model(aggregation=Aggregation(2))
    expected = _train(alone, B, 2 * B)

    def train(reducer: Reducer) -> tuple[list[float], bool, list[FloatArray]]:
        model = small_model(aggregation=Aggregation(2), reducer=reducer)
        losses, half = [], B // 2
        for first in (reducer.rank * half, B + reducer.rank * half):
            losses.append(float(model.train_step(batch_of(range(first, first + half)))["loss"]))
            if first < B:
                assert model.aggregated is not None
                gather_on_first_rank(model.aggregated, reducer)
                kept = bool(np.any(model.aggregated))
        return losses, kept, state(model)

    (losses, kept, held), (others, kept_too, other) = together(2, train)
    assert (kept, kept_too) == (True, False)
    assert losses == others == pytest.approx(expected, rel=1e-10)
    assert all_equal(held, other)
    _assert_same(held, state(alone))


def test_a_traced_step_equals_an_eager_one_and_is_traced_once() -> None:
    eager, traced = (small_model(aggregation=Aggregation(2)) for _ in range(2))
    step = tf.function(traced.train_step)
    for number in range(3):
        batch = batch_of(range(number * B, (number + 1) * B))
        expected = eager.train_step(batch)
        # The compiled graph may fuse and reorder sums.
        assert float(step(batch)["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-10)
    assert step.experimental_get_tracing_count() == 1
    _assert_same(state(eager), state(traced))
