"""Step lengths and learning rates as pure functions of the step (first law of the design)."""

from __future__ import annotations

import math

from natdgp.natgrad.settings import NaturalGradientSettings
from natdgp.training.settings import (
    AdamSettings,
    CosineSchedule,
    ExponentialSchedule,
    PerEpochSchedule,
)


def gamma_at(settings: NaturalGradientSettings, step: int, position: int = 0) -> float:
    """Natural-gradient step length of a layer at a step.

    Log-linear from gamma_initial to gamma over ramp_steps, then level (Salimbeni, Eleftheriadis &
    Hensman 2018, section 5, who warm gamma up because the first steps are the least trustworthy).

    :param position: which of the layers that natural gradients train, first to last, from 0.
    """
    first, last = settings.gamma_initial_of(position), settings.gamma_of(position)
    if step >= settings.ramp_steps:
        return last
    share = step / settings.ramp_steps
    return math.exp((1 - share) * math.log(first) + share * math.log(last))


def learning_rate_at(settings: AdamSettings, step: int) -> float:
    """Adam's learning rate at a step, for the schedules that change it every step.

    :raises ValueError: for a per-epoch schedule, which is a function of the epoch.
    """
    schedule = settings.schedule
    if isinstance(schedule, PerEpochSchedule):
        raise ValueError("a per-epoch schedule has no value at a step")
    if isinstance(schedule, ExponentialSchedule):
        return settings.learning_rate * math.pow(schedule.decay_rate, step / schedule.decay_steps)
    if isinstance(schedule, CosineSchedule):
        done = min(step / schedule.decay_steps, 1.0)
        share = 0.5 * (1 + math.cos(math.pi * done))
        return settings.learning_rate * ((1 - schedule.alpha) * share + schedule.alpha)
    return settings.learning_rate


def learning_rate_in_epoch(settings: AdamSettings, schedule: PerEpochSchedule, epoch: int) -> float:
    """Adam's learning rate throughout an epoch, counted from 0."""
    return settings.learning_rate * math.pow(schedule.factor, epoch // schedule.every)
