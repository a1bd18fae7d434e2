"""Step lengths and learning rates as pure functions of the step (first law of the design)."""

from __future__ import annotations

import math

from natdgp.natgrad.natgrad_settings import NaturalGradientSettings
from natdgp.training.training_settings import (
    AdamSettings,
    CosineSchedule,
    ExponentialSchedule,
    PerEpochSchedule,
)


def steps_per_epoch(records_per_epoch: int | None, global_batch_size: int) -> int | None:
    """Steps of an epoch, as callbacks and schedules count; None where it has no length."""
    return max(records_per_epoch // global_batch_size, 1) if records_per_epoch else None


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


def learning_rate_at(
    settings: AdamSettings, step: int, steps_per_epoch: int | None = None
) -> float:
    """Adam's learning rate at a step.

    :param steps_per_epoch: what schedules by epoch count in.
    :raises ValueError: for a per-epoch schedule, if an epoch has no length.
    """
    schedule = settings.schedule
    if isinstance(schedule, PerEpochSchedule):
        if steps_per_epoch is None:
            raise ValueError(
                "adam.schedule is per_epoch, but an epoch has no length; set records_per_epoch to "
                "the number of training rows, or use a schedule in steps"
            )
        epoch = step // steps_per_epoch
        return settings.learning_rate * math.pow(schedule.factor, epoch // schedule.every)
    if isinstance(schedule, ExponentialSchedule):
        return settings.learning_rate * math.pow(schedule.decay_rate, step / schedule.decay_steps)
    if isinstance(schedule, CosineSchedule):
        done = min(step / schedule.decay_steps, 1.0)
        share = 0.5 * (1 + math.cos(math.pi * done))
        return settings.learning_rate * ((1 - schedule.alpha) * share + schedule.alpha)
    return settings.learning_rate
