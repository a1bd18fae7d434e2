from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from natdgp.data.settings import TableSettings
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.builder import TaskShape
from natdgp.models.settings import ModelSettings
from natdgp.natgrad.settings import NaturalGradientSettings
from natdgp.settings.schema import Settings
from natdgp.training.aggregation import Aggregation, Aggregator
from natdgp.training.builder import build_optimizers, build_training_model
from natdgp.training.model import NatGradModel
from natdgp.training.settings import AdamSettings
from tests.conftest import FloatArray
from tests.unit.training.ranks import together

N, B, K = 40, 8, 3
Batch = dict[str, tf.Tensor]


def _rows() -> tuple[FloatArray, FloatArray]:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(N, 2))
    return X, np.sin(2 * X[:, :1]) + 0.1 * generator.normal(size=(N, 1))


def _model(
    aggregation: Aggregation | None = None,
    reducer: Reducer | None = None,
    *,
    gamma: float = 0.1,
    natgrad_layers: Any = "last",
) -> NatGradModel:
    """Two layers with S = 2, every q(u) away from its start, so that all gradients are at work.

    Where gradients vanish, Adam would make steps of their rounding.
    """
    settings = Settings(
        global_batch_size=B,
        data=TableSettings(source="csv", path="rows.csv", target=("y",)),
        model=ModelSettings(layers=2, inducing_points=5, num_samples=2),
        natural_gradient=NaturalGradientSettings(gamma=gamma, layers=natgrad_layers),
        adam=AdamSettings(learning_rate=0.01),
    )
    model = build_training_model(
        settings,
        TaskShape(N, 2, 1),
        np.ones(1),
        seed=7,
        X=_rows()[0],
        reducer=reducer,
        aggregation=aggregation,
    )
    generator = np.random.default_rng(1)
    for layer in model.deep_gp.f_layers:
        layer.q_mu.assign(0.3 * generator.normal(size=layer.q_mu.shape))
        identity = np.broadcast_to(np.eye(5), layer.q_sqrt.shape)
        layer.q_sqrt.assign(np.tril(0.5 * identity + 0.05 * generator.normal(size=identity.shape)))
    model.compile(optimizer=build_optimizers(settings, model, lambda optimizer: optimizer))
    return model


def _batch(positions: Sequence[int]) -> Batch:
    X, Y = _rows()
    rows = np.array(positions) % N
    return {
        "inputs": tf.constant(X[rows]),
        "targets": tf.constant(Y[rows]),
        "positions": tf.constant(list(positions), tf.int64),
    }


def _losses(model: NatGradModel, *ends: int, step: Any = None) -> list[float]:
    """Train on consecutive batches that end before these positions, from position 0 on."""
    return [
        float((step or model.train_step)(_batch(range(start, end)))["loss"])
        for start, end in zip((0, *ends), ends)  # noqa: B905
    ]


def _state(model: NatGradModel) -> list[FloatArray]:
    """Everything that training changes but the number of steps."""
    variables = [*model.trainable_variables, *model.optimizer.variables]
    return [variable.numpy() for variable in variables]


def _assert_close(some: NatGradModel, other: NatGradModel) -> None:
    for one, another in zip(_state(some), _state(other), strict=True):
        # Sums over the same rows in another order.
        np.testing.assert_allclose(one, another, rtol=0, atol=1e-10)


def _equal(some: list[FloatArray], other: list[FloatArray]) -> bool:
    return all(np.array_equal(one, another) for one, another in zip(some, other, strict=True))


def test_one_batch_a_step_needs_no_aggregator() -> None:
    assert _model().aggregator is None
    assert _model(Aggregation()).aggregator is None


@pytest.mark.parametrize("natgrad_layers", ["last", "all"])
def test_k_batches_equal_one_that_is_k_times_as_large(natgrad_layers: Any) -> None:
    small = _model(Aggregation(K), natgrad_layers=natgrad_layers)
    large = _model(natgrad_layers=natgrad_layers)
    start = _state(large)
    by_batch = _losses(small, *range(B, 2 * K * B + 1, B))
    expected = _losses(large, K * B, 2 * K * B)
    _assert_close(small, large)
    assert not any(np.array_equal(*pair) for pair in zip(start, _state(large), strict=True))
    for step in (0, 1):
        mean = np.mean(by_batch[step * K : (step + 1) * K])
        assert mean == pytest.approx(expected[step], rel=1e-10)  # order of sums
    assert int(small.step) == 2 * K
    assert int(large.step) == 2


def test_batches_of_unequal_size_weigh_by_their_rows() -> None:
    small, large = _model(Aggregation(K)), _model()
    _losses(small, 4, 6, 18)
    _losses(large, 18)
    _assert_close(small, large)


def test_noise_is_at_work_in_what_is_compared() -> None:
    # Rows of the same values at other positions, which only the noise knows.
    losses = [float(_model().train_step(_batch(range(f, f + B)))["loss"]) for f in (0, N)]
    assert abs(losses[0] - losses[1]) > 1e-6


def test_no_step_is_taken_before_the_last_of_k_batches() -> None:
    model = _model(Aggregation(K))
    state, counts = _state(model), []
    for number in range(2 * K):
        metrics = model.train_step(_batch(range(number * B, (number + 1) * B)))
        counts.append(int(metrics["natgrad_taken"]))
        before, state = state, _state(model)
        assert _equal(before, state) == ((number + 1) % K != 0), number
    assert counts == [0, 0, 1, 1, 1, 2]
    assert int(model.optimizer.iterations) == 2


def test_a_traced_step_equals_an_eager_one_and_is_traced_once() -> None:
    eager, traced = _model(Aggregation(2)), _model(Aggregation(2))
    step = tf.function(traced.train_step, reduce_retracing=True)
    ends = range(B, 4 * B + 1, B)
    expected = _losses(eager, *ends)
    # The compiled graph may fuse and reorder sums.
    assert _losses(traced, *ends, step=step) == pytest.approx(expected, rel=1e-10)
    assert step.experimental_get_tracing_count() == 1
    _assert_close(eager, traced)


def test_summed_gradients_are_k_times_the_averaged() -> None:
    summed = _model(Aggregation(K, average=False), gamma=0.02)
    averaged = _model(Aggregation(K), gamma=K * 0.02)
    for model in (summed, averaged):
        _losses(model, B, 2 * B, 3 * B)
    ours, theirs = (model.deep_gp.f_layers[-1] for model in (summed, averaged))
    # A natural-gradient step is gamma times the gradient in natural parameters.
    np.testing.assert_allclose(ours.q_mu, theirs.q_mu, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ours.q_sqrt, theirs.q_sqrt, rtol=0, atol=1e-10)
    assert np.max(np.abs(ours.q_mu - _model().deep_gp.f_layers[-1].q_mu)) > 1e-3


# --- the aggregator by itself -----------------------------------------------------------------

SHAPES = [(2,), (), (2, 2)]


def _aggregator(
    reducer: Reducer | None = None, *, frequency: int = 2, average: bool = True
) -> Aggregator:
    parameters = [tf.Variable(tf.zeros(shape, tf.float64)) for shape in SHAPES]
    return Aggregator(Aggregation(frequency, average), parameters, reducer or OneProcess())


def _gradients(value: float) -> list[tf.Tensor]:
    return [
        tf.fill(shape, tf.constant(value * (i + 1), tf.float64)) for i, shape in enumerate(SHAPES)
    ]


def _taken(aggregator: Aggregator) -> float:
    """What is taken, in the measure of `_gradients`."""
    like = _gradients(0.0)
    gradients = aggregator.take(like)
    value = float(gradients[0][0])
    for gradient, expected in zip(gradients, _gradients(value), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-12)  # one division each
        assert gradient.shape == expected.shape
    return value


@pytest.mark.parametrize(("average", "factor"), [(True, 1), (False, 4)])
def test_what_is_taken_is_the_mean_over_examples_or_k_times_it(average: bool, factor: int) -> None:
    aggregator = _aggregator(frequency=4, average=average)
    aggregator.add(_gradients(1.0), tf.constant(3))
    aggregator.add(_gradients(9.0), tf.constant(1))
    assert _taken(aggregator) == 3.0 * factor


def test_what_was_taken_is_forgotten() -> None:
    aggregator = _aggregator()
    aggregator.add(_gradients(5.0), tf.constant(7))
    assert _taken(aggregator) == 5.0
    aggregator.add(_gradients(2.0), tf.constant(1))
    assert _taken(aggregator) == 2.0


def test_every_kth_step_is_complete() -> None:
    aggregator = _aggregator(frequency=3)
    complete = [bool(aggregator.is_complete(tf.constant(t, tf.int64))) for t in range(7)]
    assert complete == [False, False, True, False, False, True, False]


def test_what_is_kept_is_no_variable_of_the_model() -> None:
    """A checkpoint's weights are the same however many batches make a step."""
    model = _model(Aggregation(2))
    assert model.aggregator is not None
    assert all(model.aggregator.kept is not variable for variable in model.variables)
    assert len(model.variables) == len(_model().variables)


# --- several ranks and checkpoints ------------------------------------------------------------


def test_ranks_take_what_all_of_them_kept() -> None:
    def keep_and_take(reducer: Reducer) -> float:
        aggregator = _aggregator(reducer)
        aggregator.add(_gradients(1.0 + reducer.rank), tf.constant(2))
        aggregator.add(_gradients(3.0), tf.constant(2 + 4 * reducer.rank))
        return _taken(aggregator)

    # (1 * 2 + 3 * 2 + 2 * 2 + 3 * 6) / 12
    assert together(2, keep_and_take) == [2.5, 2.5]


def test_rank_0_gathers_what_all_kept_and_nothing_is_counted_twice() -> None:
    def keep(reducer: Reducer) -> tuple[float, float, float]:
        aggregator = _aggregator(reducer)
        aggregator.add(_gradients(1.0 + reducer.rank), tf.constant(2))
        aggregator.gather()
        own = aggregator.kept.numpy()
        aggregator.gather()  # a second checkpoint at the same step
        return own[0], own[-1], _taken(aggregator)

    assert together(2, keep) == [(6.0, 4.0, 1.5), (0.0, 0.0, 1.5)]


def test_only_rank_0_goes_on_with_what_was_gathered(tmp_path: Path) -> None:
    def load(reducer: Reducer) -> tuple[float, float]:
        aggregator = _aggregator(reducer)
        aggregator.add(_gradients(7.0), tf.constant(1))  # of before
        aggregator.load(tmp_path)
        examples = float(aggregator.kept[-1])
        aggregator.add(_gradients(1.0), tf.constant(3))
        return examples, _taken(aggregator)

    saved = _aggregator()
    saved.add(_gradients(4.0), tf.constant(3))
    saved.save(tmp_path)
    # (4 * 3 + 1 * 3 + 1 * 3) / 9
    assert together(2, load) == [(3.0, 2.0), (0.0, 2.0)]


def test_a_checkpoint_that_kept_nothing_is_gone_on_with(tmp_path: Path) -> None:
    aggregator = _aggregator()
    aggregator.add(_gradients(7.0), tf.constant(1))
    aggregator.load(tmp_path)
    assert not np.any(aggregator.kept)


def test_one_process_gathers_what_it_has() -> None:
    aggregator = _aggregator()
    aggregator.add(_gradients(4.0), tf.constant(3))
    aggregator.gather()
    assert _taken(aggregator) == 4.0


def test_a_checkpoint_between_two_steps_loses_nothing(tmp_path: Path) -> None:
    straight, resumed = _model(Aggregation(K)), _model(Aggregation(K))
    batches = [_batch(range(start, start + B)) for start in range(0, 3 * B, B)]
    for batch in batches[:2]:
        straight.train_step(batch)
    straight.save_weights(str(tmp_path / "weights"), save_format="tf")
    resumed.load_weights(str(tmp_path / "weights")).assert_existing_objects_matched()
    assert straight.aggregator is not None
    assert resumed.aggregator is not None
    straight.aggregator.save(tmp_path)
    resumed.aggregator.load(tmp_path)
    assert int(resumed.step) == 2
    for model in (straight, resumed):
        model.train_step(batches[2])
    assert _equal(_state(straight), _state(resumed))  # to the last bit
    fresh = _model(Aggregation(1))
    fresh.train_step(batches[2])
    assert not _equal(_state(fresh), _state(resumed))


def test_two_ranks_aggregate_what_one_does() -> None:
    alone = _model(Aggregation(2))
    expected = _losses(alone, B, 2 * B)

    def train(reducer: Reducer) -> tuple[list[float], NatGradModel]:
        model = _model(Aggregation(2), reducer)
        losses, half = [], B // 2
        for step in range(2):
            first = step * B + reducer.rank * half
            losses.append(float(model.train_step(_batch(range(first, first + half)))["loss"]))
            if step == 0:  # as for a checkpoint, which changes nothing
                assert model.aggregator is not None
                model.aggregator.gather()
        return losses, model

    (losses, model), (others, other) = together(2, train)
    assert losses == others == pytest.approx(expected, rel=1e-10)  # order of sums
    assert _equal(_state(model), _state(other))
    _assert_close(model, alone)
