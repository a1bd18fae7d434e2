"""What training can be set to: Adam, its schedules, what is monitored, and the evaluation."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from natdgp.fields import Frozen, Number, PositiveFloat, PositiveInt

SelectionMetric = Literal[
    "val_loss",
    "val_rmse",
    "val_nlpd",
    "val_crps",
    "val_elbo_per_datum",
    "val_rmse_standardised",
    "val_nlpd_standardised",
    "val_crps_standardised",
    "val_accuracy",
    "val_brier",
]
"""Validation metrics that models may be selected by; a likelihood has those of its figures."""

LARGER_IS_BETTER: Final = frozenset({"val_elbo_per_datum", "val_accuracy"})


class ConstantSchedule(Frozen):
    """The learning rate stays."""

    name: Literal["constant"] = "constant"


class ExponentialSchedule(Frozen):
    """learning_rate * decay_rate ** (step / decay_steps)."""

    name: Literal["exponential"]
    decay_rate: Annotated[Number, Field(gt=0, le=1)]
    decay_steps: PositiveInt


class CosineSchedule(Frozen):
    """Half a cosine from learning_rate to learning_rate * alpha over decay_steps, then level."""

    name: Literal["cosine"]
    decay_steps: PositiveInt
    alpha: Annotated[Number, Field(ge=0, le=1)] = 0.0


class PerEpochSchedule(Frozen):
    """learning_rate * factor ** (epoch // every); an epoch is `records_per_epoch` rows."""

    name: Literal["per_epoch"]
    factor: Annotated[Number, Field(gt=0, le=1)]
    every: PositiveInt = 1


ScheduleSettings = Annotated[
    ConstantSchedule | ExponentialSchedule | CosineSchedule | PerEpochSchedule,
    Field(discriminator="name"),
]


class AdamSettings(Frozen):
    """Adam (Kingma & Ba 2015) for everything that natural gradients do not train."""

    learning_rate: PositiveFloat = 0.01
    schedule: ScheduleSettings = ConstantSchedule()


class PlateauSettings(Frozen):
    """Lower Adam's learning rate when a validation metric stops improving."""

    monitor: SelectionMetric = "val_nlpd"
    factor: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    patience: PositiveInt = 5
    """Validations without improvement before the rate is lowered."""
    min_delta: Annotated[Number, Field(ge=0)] = 1e-4
    min_learning_rate: Annotated[Number, Field(ge=0)] = 0.0


class EarlyStoppingSettings(Frozen):
    """End the trial when a validation metric stops improving."""

    monitor: SelectionMetric = "val_nlpd"
    patience: PositiveInt = 10
    """Validations without improvement before the trial ends."""
    min_delta: Annotated[Number, Field(ge=0)] = 0.0


class EvaluationSettings(Frozen):
    """How validation and test figures are computed."""

    num_samples: PositiveInt = 32
    """S, Monte-Carlo samples of the predictive density, shared by all rows and most evenly spread
    where they are a power of 2; one-layer models need only 1."""
    batch_size: PositiveInt = 4096
    """Rows evaluated at once over all slots. It bounds memory and changes no figure."""
