"""The one decision whether a step is taken at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from natdgp.distributed.reducer import Reducer
from natdgp.training.updates import MAX_REFUSED
from tests.unit.training.ranks import together
from tests.unit.training.small_models import all_equal, batch_of, small_model, state


def _spoil(batch: dict[str, tf.Tensor], figure: float = np.nan) -> dict[str, tf.Tensor]:
    targets = batch["targets"].numpy()
    targets[0] = figure
    return {**batch, "targets": tf.constant(targets)}


def _spoil_gradient_of(variable: tf.Variable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient by one variable alone is NaN, as a kernel's own overflow leaves it."""
    gradient = tf.GradientTape.gradient

    def spoiled(tape: tf.GradientTape, target: Any, sources: Any, **others: Any) -> Any:
        q, by_others = gradient(tape, target, sources, **others)
        return q, tuple(
            one * np.nan if source is variable else one
            for one, source in zip(by_others, sources[1], strict=True)
        )

    monkeypatch.setattr(tf.GradientTape, "gradient", spoiled)


def test_one_bad_number_in_adams_gradient_changes_nothing_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_model()
    model.train_step(batch_of())  # Adam has moments
    before = state(model)
    with monkeypatch.context() as patch:
        _spoil_gradient_of(model.other_variables()[2], patch)
        metrics = model.train_step(batch_of())
    assert np.isfinite(float(metrics["loss"]))
    assert all_equal(state(model), before)
    assert model.refused.numpy().tolist() == [1, 1]
    assert int(metrics["steps_refused"]) == 1
    assert int(metrics["natgrad_refused"]) == 0  # it is no matter of single latent GPs
    model.train_step(batch_of())
    assert not all_equal(state(model), before)
    assert model.refused.numpy().tolist() == [0, 1]


def test_a_bad_batch_changes_nothing_at_all() -> None:
    model = small_model()
    before = state(model)
    model.train_step(_spoil(batch_of(), np.inf))
    assert all_equal(state(model), before)
    assert int(model.step) == 1


@pytest.mark.parametrize("placement", ["replicated", "sharded"])
def test_a_bad_number_on_one_rank_changes_nothing_on_any(placement: Any) -> None:
    def train(reducer: Reducer) -> tuple[bool, list[int]]:
        model = small_model(reducer=reducer, placement=placement)
        before = state(model)
        batch = batch_of(range(6 * reducer.rank, 6 * reducer.rank + 6))
        model.train_step(_spoil(batch) if reducer.rank == 1 else batch)
        return all_equal(state(model), before), model.refused.numpy().tolist()

    assert together(2, train) == [(True, [1, 1])] * 2


def test_too_many_in_a_row_end_the_training() -> None:
    model = small_model((1,))
    step = tf.function(model.train_step)
    model.refused[0].assign(MAX_REFUSED - 1)
    step(batch_of())  # a good one: the count begins anew
    before = state(model)
    for _ in range(MAX_REFUSED - 1):
        step(_spoil(batch_of()))
    with pytest.raises(tf.errors.InvalidArgumentError, match="were not finite 100 times in a row"):
        step(_spoil(batch_of()))
    assert all_equal(state(model), before)


def test_what_the_loss_does_not_depend_on_stays_and_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = small_model()
    lost = tf.Variable(1.0, dtype=tf.float64, name="lost")
    model.deep_gp.f_layers[0].lost = lost
    model.compile([*model.natgrad_optimizers, tf.keras.optimizers.SGD(0.1)])
    assert any(one is lost for one in model.other_variables())
    model.train_step(batch_of())
    assert float(lost) == 1.0
    assert "the loss does not depend on lost:0: it will not train" in caplog.text
