from __future__ import annotations

import logging

import pytest
import tensorflow as tf

from natdgp.data.prepare import Numbers
from natdgp.distributed.cost import Network
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.settings import ModelSettings
from natdgp.training import placement
from natdgp.training.placement import CORES, GPUS, Machine, choose_placement, shards_steps
from tests.unit.training.ranks import together

FREE = Network(call=0.0, message=0.0, bandwidth=1e30)
SLOW_STEPS = Machine("slow steps", square=0.0, cube=1e-6, network=FREE)
SLOW_CALLS = Machine(
    "slow calls", square=0.0, cube=1e-9, network=Network(call=1.0, message=0.0, bandwidth=1e30)
)


def test_steps_that_take_long_are_shared_out() -> None:
    chosen = choose_placement([(10, 8)], 4, SLOW_STEPS)
    assert chosen.sharded
    assert chosen.replicated_seconds == pytest.approx(8e-3)
    assert chosen.sharded_seconds == pytest.approx(2e-3)


def test_collectives_that_take_long_are_not_added() -> None:
    chosen = choose_placement([(10, 8)], 4, SLOW_CALLS)
    assert not chosen.sharded
    assert chosen.sharded_seconds == pytest.approx(2 + 2e-6)


def test_one_latent_gp_cannot_be_shared() -> None:
    assert not choose_placement([(1000, 1)], 4, SLOW_STEPS).sharded


def test_one_rank_takes_all_steps() -> None:
    assert not choose_placement([(1000, 8)], 1, SLOW_STEPS).sharded


def test_bytes_count_with_their_padding() -> None:
    """Shares of 2 and 1 latent GPs: the collective carries 2 for each rank."""
    per_byte = Machine("bytes", square=0.0, cube=0.0, network=Network(0.0, 0.0, 1.0))
    chosen = choose_placement([(2, 3)], 2, per_byte)  # 2 + 3 numbers each, of 8 bytes
    assert chosen.replicated_seconds == pytest.approx(3 * 5 * 8)
    assert chosen.sharded_seconds == pytest.approx(2 * 2 * 5 * 8)


@pytest.mark.parametrize("machine", [CORES, GPUS])
def test_small_models_are_replicated_and_large_ones_shared_out(machine: Machine) -> None:
    assert not choose_placement([(50, 2), (50, 1)], 2, machine).sharded
    assert choose_placement([(2000, 16)], 8, machine).sharded


@pytest.fixture
def layers(waves: tuple[Numbers, Numbers]) -> list[tf.keras.layers.Layer]:
    X, _ = waves
    shape = TaskShape(num_data=len(X), input_dim=X.shape[1], output_dim=1)
    model = build_deep_gp(ModelSettings(layers=2, inducing_points=5), shape, seed=0, X=X)
    return list(model.f_layers)


def test_auto_chooses_alike_on_all_ranks_and_rank_0_says_what(
    layers: list[tf.keras.layers.Layer],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def choose(reducer: Reducer) -> bool:
        return shards_steps("auto", layers, reducer)

    with caplog.at_level(logging.INFO, "natdgp"):
        assert together(2, choose) == [False, False]
        monkeypatch.setattr(placement, "CORES", SLOW_STEPS)
        assert together(2, choose) == [True, True]
    kinds = [record.getMessage().partition(";")[0] for record in caplog.records]
    assert kinds == [
        "natural_gradient.placement is auto: replicated",
        "natural_gradient.placement is auto: sharded",
    ]


def test_what_is_asked_for_is_done_without_a_word(
    layers: list[tf.keras.layers.Layer], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "natdgp"):
        assert together(2, lambda r: shards_steps("sharded", layers, r)) == [True, True]
        assert together(2, lambda r: shards_steps("replicated", layers, r)) == [False, False]
        assert not shards_steps("sharded", layers, OneProcess())
        assert together(2, lambda r: shards_steps("sharded", [], r)) == [False, False]
    assert not caplog.records
