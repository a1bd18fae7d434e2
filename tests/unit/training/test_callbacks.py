"""Callbacks of the engine's own, and their memories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from natdgp.distributed.reducer import OneProcess
from natdgp.settings.schema import Settings
from natdgp.training import callbacks as callbacks_module
from natdgp.training.callbacks import (
    DriftCheck,
    EarlyStopping,
    ReduceLROnPlateau,
    StepLengthSchedule,
    build_callbacks,
    load_states,
    states_of,
)
from natdgp.training.training_settings import EarlyStoppingSettings, PlateauSettings
from tests.unit.training.small_models import batch_of, small_model


def _callbacks(**groups: Any) -> list[Any]:
    """Those that settings ask for."""
    settings = Settings.read({"global_batch_size": 8, **groups}, {"source": "flights"})
    return list(build_callbacks(settings, None))


class Model:
    """All that callbacks look at."""

    def __init__(self) -> None:
        self.optimizer = tf.keras.optimizers.SGD(0.1)
        self.stop_training = False
        self.step = tf.Variable(0, dtype=tf.int64)
        self.reducer: Any = OneProcess()


def _hears(callback: Any, figures: Sequence[float], name: str = "val_nlpd") -> list[Any]:
    """The learning rate and whether the training is to stop, after each validation."""
    if callback.model is None:
        callback.set_model(Model())
    found = []
    for figure in figures:
        callback.on_test_end({name: figure})
        model = callback.model
        found.append((round(float(model.optimizer.learning_rate), 6), model.stop_training))
    return found


def test_the_rate_is_lowered_on_a_plateau_down_to_its_least() -> None:
    settings = PlateauSettings(patience=2, factor=0.5, min_delta=0.1, min_learning_rate=0.03)
    found = _hears(ReduceLROnPlateau(settings), [1.0, 0.95, 0.96, 0.5, 0.5, 0.5, 0.5, 0.5, 0.3])
    rates = [rate for rate, _ in found]
    assert rates == [0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03]


@pytest.mark.parametrize(
    ("monitor", "figures", "stops"),
    [
        ("val_nlpd", [1.0, 0.9, 0.95, 0.9, 0.8], [False, False, False, True, True]),
        ("val_elbo_per_datum", [1.0, 0.9, 1.1, 1.1, 1.1], [False, False, False, False, True]),
    ],
)
def test_training_stops_after_validations_without_improvement(
    monitor: Any, figures: list[float], stops: list[bool]
) -> None:
    callback = EarlyStopping(EarlyStoppingSettings(monitor=monitor, patience=2))
    assert not callback.has_stopped
    assert [stop for _, stop in _hears(callback, figures, monitor)] == stops


def test_memories_are_plain_values_and_go_on() -> None:
    def make() -> list[Any]:
        plateau = ReduceLROnPlateau(PlateauSettings(patience=3))
        stopping = EarlyStopping(EarlyStoppingSettings(patience=3))
        return [tf.keras.callbacks.Callback(), plateau, stopping]

    straight, first, second = make(), make(), make()
    figures = [1.0, 1.1, 1.2, 1.3, 0.5, 0.6]
    assert states_of(first)["1 ReduceLROnPlateau"] == {"best": None, "wait": 0}
    for one in first[1:]:
        _hears(one, figures[:3])
    load_states(second, json.loads(json.dumps(states_of(first))))
    for expected, callback in zip(straight[1:], second[1:], strict=True):
        assert _hears(callback, figures[3:])[0] == _hears(expected, figures)[3]
    assert states_of(second) == states_of(straight)
    load_states(second, {})  # of callbacks that were not there: as they are
    assert states_of(second) == states_of(straight)


def test_schedules_set_what_the_step_says_before_the_step() -> None:
    ramp = {"gamma": [0.1, 0.4], "gamma_initial": 0.001, "ramp_steps": 2}
    model = small_model()
    schedule, _ = _callbacks(
        natural_gradient={"layers": "all", **ramp},
        adam={"schedule": {"name": "exponential", "decay_rate": 0.25, "decay_steps": 2}},
    )
    schedule.set_model(model)
    for step, lengths in (
        (0, (0.001, 0.001, 0.01)),
        (1, (0.01, 0.02, 0.005)),
        (2, (0.1, 0.4, 0.0025)),
        (1000, (0.1, 0.4, 0.0)),
    ):
        model.step.assign(step)
        schedule.on_train_batch_begin(0)
        gammas = [float(one.gamma) for one in model.natgrad_optimizers]
        found = (*gammas, float(model.optimizer.learning_rate))
        assert found == pytest.approx(lengths, rel=1e-6)  # float32 in Keras
    assert float(model.train_step(batch_of())["gamma"]) == 0.4


def test_what_does_not_move_is_left_alone_and_a_rate_too_large_for_its_type_is_infinite() -> None:
    model = small_model()
    model.optimizer.learning_rate.assign(0.5)
    cosine = {"learning_rate": 1e39, "schedule": {"name": "cosine", "decay_steps": 10}}
    for adam, rate in (({}, 0.5), (cosine, np.inf)):
        schedule, _ = _callbacks(adam=adam)
        schedule.set_model(model)
        schedule.on_train_batch_begin(0)
        assert float(model.optimizer.learning_rate) == rate


def test_ranks_are_compared_every_hundred_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    monkeypatch.setattr(callbacks_module, "check_drift", lambda m: compared.append(int(m.step)))
    callback = DriftCheck()
    callback.set_model(model := Model())
    for size in (1, 2):
        model.reducer = type("Ranks", (), {"size": size})
        for step in (1, 99, 100, 101, 200):
            model.step.assign(step)
            callback.on_train_batch_end(0)
    assert compared == [100, 200]


def test_callbacks_are_those_that_the_settings_ask_for() -> None:
    kinds = [type(one) for one in _callbacks(reduce_lr_on_plateau={}, early_stopping={})]
    assert kinds == [StepLengthSchedule, DriftCheck, ReduceLROnPlateau, EarlyStopping]
    assert [type(one) for one in _callbacks()] == kinds[:2]
