"""Keras callbacks, chosen by settings: schedules, plateau reduction, early stopping."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from determined.keras import callbacks as determined_callbacks

from natdgp.settings.schema import Settings
from natdgp.training.drift import check_drift
from natdgp.training.schedules import gamma_at, learning_rate_at, learning_rate_in_epoch
from natdgp.training.settings import LARGER_IS_BETTER, PerEpochSchedule


class StepLengthSchedule(tf.keras.callbacks.Callback):
    """Sets gamma, and Adam's learning rate where a schedule moves it, before every step.

    Both are functions of the model's step, so there is no state to save or to lose.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._moves_rate = settings.adam.schedule.name in ("exponential", "cosine")

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = int(self.model.step)
        for position, optimizer in enumerate(self.model.natgrad_optimizers):
            _assign(optimizer.gamma, gamma_at(self._settings.natural_gradient, step, position))
        if self._moves_rate:
            _assign(self.model.optimizer.learning_rate, learning_rate_at(self._settings.adam, step))


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
        if int(self.model.step) % self.EVERY == 0:
            check_drift(self.model)


class ReduceLROnPlateau(determined_callbacks.ReduceLROnPlateau):
    """Determined's, which acts after validations and so needs no epochs."""

    _skip_epoch_end_check = True  # else Determined demands records_per_epoch for nothing


class EarlyStopping(determined_callbacks.EarlyStopping):
    """Determined's, with the best value among what a checkpoint keeps.

    Determined 0.38.1 leaves `best` out, so that it is infinite after every resume and the trial
    waits anew.
    """

    _skip_epoch_end_check = True  # as above
    _savable_attributes = determined_callbacks.EarlyStopping._savable_attributes | {"best"}

    @property
    def has_stopped(self) -> bool:
        """Whether it has ended the trial, in this session or in one before."""
        return bool(self.wait >= self.patience)


def build_callbacks(settings: Settings) -> list[tf.keras.callbacks.Callback]:
    """The callbacks that the settings ask for.

    Those that watch a validation metric act after each validation, on all ranks alike.
    """
    callbacks: list[tf.keras.callbacks.Callback] = [StepLengthSchedule(settings), DriftCheck()]
    schedule = settings.adam.schedule
    if isinstance(schedule, PerEpochSchedule):
        callbacks.append(
            tf.keras.callbacks.LearningRateScheduler(
                lambda epoch, _: learning_rate_in_epoch(settings.adam, schedule, epoch)
            )
        )
    if (plateau := settings.reduce_lr_on_plateau) is not None:
        callbacks.append(
            ReduceLROnPlateau(
                monitor=plateau.monitor,
                factor=plateau.factor,
                patience=plateau.patience,
                min_delta=plateau.min_delta,
                min_lr=plateau.min_learning_rate,
                mode=_direction(plateau.monitor),
            )
        )
    if (stopping := settings.early_stopping) is not None:
        callbacks.append(
            EarlyStopping(
                monitor=stopping.monitor,
                patience=stopping.patience,
                min_delta=stopping.min_delta,
                mode=_direction(stopping.monitor),
            )
        )
    return callbacks


def _direction(metric: str) -> str:
    return "max" if metric in LARGER_IS_BETTER else "min"
