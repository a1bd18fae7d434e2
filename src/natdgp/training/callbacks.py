"""Keras callbacks of the engine's own: schedules, drift check, plateau, early stopping.

They act on steps and validations, which every driver has, and on no epochs. Those with a memory
give it as plain values, which a checkpoint keeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from natdgp.settings.schema import Settings
from natdgp.training.drift import check_drift
from natdgp.training.schedules import gamma_at, learning_rate_at
from natdgp.training.training_settings import (
    LARGER_IS_BETTER,
    EarlyStoppingSettings,
    PlateauSettings,
)


class Stateful(Protocol):
    """A callback with a memory."""

    def get_state(self) -> dict[str, Any]:
        """It as plain values."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with what :meth:`get_state` gave."""


class StepLengthSchedule(tf.keras.callbacks.Callback):
    """Sets gamma and Adam's learning rate before every step, where a schedule moves them.

    Both are functions of the model's step, so there is no state to save or to lose.
    """

    def __init__(self, settings: Settings, steps_per_epoch: int | None) -> None:
        """:param steps_per_epoch: what schedules by epoch count in."""
        super().__init__()
        self._settings = settings
        self._steps_per_epoch = steps_per_epoch
        self._moves_rate = settings.adam.schedule.name != "constant"
        self._moves_gamma = settings.natural_gradient.gamma_initial is not None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not (self._moves_gamma or self._moves_rate):
            return
        step = int(self.model.step)
        if self._moves_gamma:
            for position, optimizer in enumerate(self.model.natgrad_optimizers):
                _assign(optimizer.gamma, gamma_at(self._settings.natural_gradient, step, position))
        if self._moves_rate:
            rate = learning_rate_at(self._settings.adam, step, self._steps_per_epoch)
            _assign(self.model.optimizer.learning_rate, rate)


def _assign(variable: tf.Variable, number: float) -> None:
    # An array: TensorFlow remembers every number of Python's that it was ever given. What is too
    # large for the variable becomes infinite, and the loss tells.
    with np.errstate(over="ignore"):
        variable.assign(np.array(number).astype(variable.dtype.as_numpy_dtype))


class DriftCheck(tf.keras.callbacks.Callback):
    """Compares the parameters of all ranks every so many steps; on one rank it does nothing."""

    EVERY = 100
    """Steps between comparisons, each of which reads all parameters once."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.model.reducer.size > 1 and int(self.model.step) % self.EVERY == 0:
            check_drift(self.model)


class _Watching(tf.keras.callbacks.Callback):
    """Counts validations without improvement of a metric."""

    def __init__(self, monitor: str, patience: int, min_delta: float) -> None:
        super().__init__()
        self._monitor = monitor
        self._patience = patience
        self._min_delta = min_delta
        self._sign = -1 if monitor in LARGER_IS_BETTER else 1
        self._best = math.inf
        self.wait = 0
        """Validations without improvement until now."""

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        value = self._sign * float((logs or {})[self._monitor])
        if value < self._best - self._min_delta:
            self._best, self.wait = value, 0
            return
        self.wait += 1
        if self.wait >= self._patience:
            self._lose_patience()

    def _lose_patience(self) -> None:
        raise NotImplementedError

    def get_state(self) -> dict[str, Any]:
        """Its memory as plain values."""
        return {"best": None if math.isinf(self._best) else self._best, "wait": self.wait}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with what :meth:`get_state` gave."""
        self._best = math.inf if state["best"] is None else float(state["best"])
        self.wait = int(state["wait"])


class ReduceLROnPlateau(_Watching):
    """Multiplies the learning rate after validations without improvement."""

    def __init__(self, settings: PlateauSettings) -> None:
        super().__init__(settings.monitor, settings.patience, settings.min_delta)
        self._factor = settings.factor
        self._min_rate = settings.min_learning_rate

    def _lose_patience(self) -> None:
        self.wait = 0
        rate = self.model.optimizer.learning_rate
        _assign(rate, max(float(rate) * self._factor, self._min_rate))


class EarlyStopping(_Watching):
    """Ends the training after validations without improvement."""

    def __init__(self, settings: EarlyStoppingSettings) -> None:
        super().__init__(settings.monitor, settings.patience, settings.min_delta)

    @property
    def has_stopped(self) -> bool:
        """Whether it has ended the training, in this session or in one before."""
        return self.wait >= self._patience

    def _lose_patience(self) -> None:
        self.model.stop_training = True


def build_callbacks(
    settings: Settings, steps_per_epoch: int | None
) -> list[tf.keras.callbacks.Callback]:
    """The callbacks that the settings ask for; those that watch act alike on all ranks."""
    callbacks: list[tf.keras.callbacks.Callback] = [
        StepLengthSchedule(settings, steps_per_epoch),
        DriftCheck(),
    ]
    if settings.reduce_lr_on_plateau is not None:
        callbacks.append(ReduceLROnPlateau(settings.reduce_lr_on_plateau))
    if settings.early_stopping is not None:
        callbacks.append(EarlyStopping(settings.early_stopping))
    return callbacks


def states_of(callbacks: list[Any]) -> dict[str, Any]:
    """The memories of all callbacks that have one, by class and place in the list."""
    return {
        _name(index, one): one.get_state()
        for index, one in enumerate(callbacks)
        if hasattr(one, "get_state")
    }


def load_states(callbacks: list[Any], states: Mapping[str, Any]) -> None:
    """Give callbacks back what :func:`states_of` took of them; others begin anew."""
    for index, one in enumerate(callbacks):
        if (name := _name(index, one)) in states:
            one.load_state(states[name])


def _name(index: int, callback: Any) -> str:
    return f"{index} {type(callback).__name__}"
