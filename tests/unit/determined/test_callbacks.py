from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf
from natdgp.determined.callbacks import (
    DriftCheck,
    EarlyStopping,
    ReduceLROnPlateau,
    StepLengthSchedule,
    build_callbacks,
)

from natdgp.determined import callbacks
from natdgp.settings.schema import Settings


def _settings(**groups: Any) -> Settings:
    return Settings.read({"global_batch_size": 8, **groups}, {"source": "flights"})


def _model(step: int, learning_rate: float = 0.5) -> Any:
    """What callbacks see of a model."""
    return SimpleNamespace(
        step=tf.Variable(step),
        natgrad_optimizers=[SimpleNamespace(gamma=tf.Variable(0.7, dtype=tf.float64))],
        optimizer=SimpleNamespace(
            learning_rate=tf.Variable(learning_rate), lr=tf.Variable(learning_rate)
        ),
        stop_training=False,
    )


def _lengths_before_step(step: int, settings: Settings) -> tuple[float, float]:
    callback = StepLengthSchedule(settings)
    callback.set_model(_model(step))
    callback.on_train_batch_begin(0)
    (natural,) = callback.model.natgrad_optimizers
    return float(natural.gamma), float(callback.model.optimizer.learning_rate)


def test_gamma_rises_by_the_models_step_and_not_by_kerass_batch() -> None:
    settings = _settings(natural_gradient={"gamma": 0.1, "gamma_initial": 0.001, "ramp_steps": 10})
    # log-linear: halfway from 1e-3 to 1e-1 is 1e-2
    assert _lengths_before_step(0, settings)[0] == pytest.approx(0.001, rel=1e-12)
    assert _lengths_before_step(5, settings)[0] == pytest.approx(0.01, rel=1e-12)
    assert _lengths_before_step(99, settings)[0] == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize(
    ("schedule", "rate"),
    [
        ({"name": "exponential", "decay_rate": 0.25, "decay_steps": 10}, 0.02),  # 0.04 * 0.25**0.5
        ({"name": "cosine", "decay_steps": 10, "alpha": 0.5}, 0.03),  # 0.04 * (0.5 * 0.5 + 0.5)
        ({"name": "constant"}, 0.5),  # the rate of the model is left alone
        ({"name": "per_epoch", "factor": 0.1}, 0.5),  # Keras' own callback moves it
    ],
)
def test_learning_rate_is_moved_by_schedules_of_the_step_alone(
    schedule: dict[str, Any], rate: float
) -> None:
    settings = _settings(adam={"learning_rate": 0.04, "schedule": schedule})
    # 1e-6: Keras keeps the rate in float32
    assert _lengths_before_step(5, settings)[1] == pytest.approx(rate, rel=1e-6)


def test_a_model_without_natural_gradients_has_no_gamma_to_set() -> None:
    callback = StepLengthSchedule(_settings())
    model = _model(3)
    model.natgrad_optimizers = []
    callback.set_model(model)
    callback.on_train_batch_begin(0)


def test_nothing_but_the_step_lengths_is_watched_unless_asked_for() -> None:
    assert [type(callback) for callback in build_callbacks(_settings())] == [
        StepLengthSchedule,
        DriftCheck,
    ]


def test_ranks_are_compared_every_so_many_steps_of_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[int] = []
    monkeypatch.setattr(callbacks, "check_drift", lambda model: checked.append(int(model.step)))
    callback = DriftCheck()
    callback.set_model(_model(0))
    for step in range(1, 2 * DriftCheck.EVERY + 2):
        callback.model.step.assign(step)
        callback.on_train_batch_end(0)  # whatever Keras counts
    assert checked == [DriftCheck.EVERY, 2 * DriftCheck.EVERY]


def test_per_epoch_schedule_becomes_kerass_scheduler() -> None:
    schedule = {"name": "per_epoch", "factor": 0.1, "every": 2}
    *_, callback = build_callbacks(_settings(adam={"learning_rate": 0.3, "schedule": schedule}))
    assert isinstance(callback, tf.keras.callbacks.LearningRateScheduler)
    # the second argument is the rate so far, which a resumed run must not depend on
    rates = [callback.schedule(epoch, 1e9) for epoch in range(4)]
    assert rates == pytest.approx([0.3, 0.3, 0.03, 0.03], rel=1e-12)


def test_plateau_is_built_as_the_settings_say() -> None:
    plateau = {
        "monitor": "val_crps",
        "factor": 0.25,
        "patience": 3,
        "min_delta": 0.5,
        "min_learning_rate": 0.125,
    }
    *_, callback = build_callbacks(_settings(reduce_lr_on_plateau=plateau))
    assert isinstance(callback, ReduceLROnPlateau)
    told = callback.monitor, callback.factor, callback.patience, callback.min_delta
    assert told == ("val_crps", 0.25, 3, 0.5)
    assert (callback.min_lr, callback.mode) == (0.125, "min")


def test_stopping_is_built_as_the_settings_say() -> None:
    stopping = {"monitor": "val_rmse", "patience": 3, "min_delta": 0.5}
    *_, callback = build_callbacks(_settings(early_stopping=stopping))
    assert isinstance(callback, EarlyStopping)
    # Keras negates min_delta where smaller is better
    assert (callback.monitor, callback.patience, callback.min_delta) == ("val_rmse", 3, -0.5)


@pytest.mark.parametrize(
    ("monitor", "values"),
    [("val_nlpd", [3.0, 2.0, 2.5]), ("val_elbo_per_datum", [-3.0, -2.0, -2.5])],
)
@pytest.mark.parametrize("group", ["early_stopping", "reduce_lr_on_plateau"])
def test_both_watch_in_the_metrics_own_direction(
    group: str, monitor: str, values: list[float]
) -> None:
    *_, callback = build_callbacks(_settings(**{group: {"monitor": monitor, "patience": 2}}))
    callback.set_model(_model(0))
    callback.on_train_begin()
    waited = []
    for value in values:
        callback.on_test_end({monitor: value})
        waited.append(callback.wait)
    assert waited == [0, 0, 1]
    assert callback.best == values[1]


def test_stopping_goes_on_counting_after_a_resume() -> None:
    def begin() -> Any:
        *_, callback = build_callbacks(_settings(early_stopping={"patience": 2}))
        callback.set_model(_model(0))
        callback.on_train_begin()
        return callback

    before, after = begin(), begin()
    for value in (1.0, 2.0):
        before.on_test_end({"val_nlpd": value})
    after.load_state(before.get_state())
    assert not after.model.stop_training
    after.on_test_end({"val_nlpd": 1.5})  # better than the last, worse than the best
    assert after.model.stop_training


def test_plateau_goes_on_counting_after_a_resume_and_respects_the_floor() -> None:
    def begin() -> Any:
        plateau = {"patience": 2, "factor": 0.1, "min_learning_rate": 0.2}
        *_, callback = build_callbacks(_settings(reduce_lr_on_plateau=plateau))
        callback.set_model(_model(0))
        callback.on_train_begin()
        return callback

    before, after = begin(), begin()
    for value in (1.0, 2.0):
        before.on_test_end({"val_nlpd": value})
    after.load_state(before.get_state())
    assert float(after.model.optimizer.lr) == 0.5
    after.on_test_end({"val_nlpd": 1.5})
    # 0.05 would be below the floor; 1e-6: float32
    assert float(after.model.optimizer.lr) == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize("group", ["early_stopping", "reduce_lr_on_plateau"])
def test_the_end_of_an_epoch_is_no_validation(group: str) -> None:
    *_, callback = build_callbacks(_settings(**{group: {}}))
    callback.set_model(_model(0))
    callback.on_train_begin()
    best = callback.best
    callback.on_epoch_end(0, {"val_nlpd": 1.0})
    assert callback.best == best
