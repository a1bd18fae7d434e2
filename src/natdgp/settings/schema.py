"""What a run is: the settings of every room, read from `hyperparameters` and `data`.

Raw dictionaries stop here. Every other room receives these objects.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError, model_validator

from natdgp.data.data_settings import DataSettings
from natdgp.fields import Frozen, PositiveInt, Refused
from natdgp.models.model_settings import ModelSettings
from natdgp.natgrad.natgrad_settings import NaturalGradientSettings
from natdgp.settings.problems import Problem, SettingsError, problems_from
from natdgp.training.training_settings import (
    AdamSettings,
    EarlyStoppingSettings,
    EvaluationSettings,
    PlateauSettings,
)


class Settings(Frozen):
    """Everything a trial needs to know: Determined's `hyperparameters`, and `data`."""

    global_batch_size: PositiveInt
    """B, rows of one training step over all slots."""
    data: DataSettings
    model: ModelSettings = ModelSettings()
    natural_gradient: NaturalGradientSettings = NaturalGradientSettings()
    adam: AdamSettings = AdamSettings()
    reduce_lr_on_plateau: PlateauSettings | None = None
    early_stopping: EarlyStoppingSettings | None = None
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _natural_gradient_layers_exist(self) -> Settings:
        chosen = self.natural_gradient.layers
        layers = range(self.model.layers)
        if isinstance(chosen, tuple) and list(chosen) != sorted({*chosen} & {*layers}):
            raise Refused(
                "no-such-layer",
                f"natural_gradient.layers is {list(chosen)} but model.layers is {len(layers)}",
                f"list indices from 0 to {layers[-1]}, first to last",
            )
        return self

    @model_validator(mode="after")
    def _one_gamma_for_each_layer(self) -> Settings:
        layers = self.natural_gradient_layers
        for name in ("gamma", "gamma_initial"):
            given = getattr(self.natural_gradient, name)
            if isinstance(given, tuple) and len(given) != len(layers):
                raise Refused(
                    "not-one-per-layer",
                    f"natural_gradient.{name} lists {len(given)} numbers for {len(layers)} layers "
                    f"with natural gradients, {list(layers)}",
                    "give one for each, first to last, or a single number",
                )
        return self

    @model_validator(mode="after")
    def _one_master_of_the_learning_rate(self) -> Settings:
        if self.reduce_lr_on_plateau is not None and self.adam.schedule.name != "constant":
            raise Refused(
                "two-learning-rates",
                f"reduce_lr_on_plateau and adam.schedule ({self.adam.schedule.name}) would both "
                "set the learning rate",
                "drop one of them",
            )
        return self

    @property
    def natural_gradient_layers(self) -> tuple[int, ...]:
        """Indices of the layers whose q(u) natural gradients train, in order."""
        return self.natural_gradient.layers_of(self.model.layers)

    @property
    def gammas(self) -> tuple[float, ...]:
        """Step lengths of the layers that natural gradients train, after any ramp, in order."""
        return tuple(map(self.natural_gradient.gamma_of, range(len(self.natural_gradient_layers))))

    @classmethod
    def read(cls, hyperparameters: Mapping[str, Any], data: Mapping[str, Any]) -> Settings:
        """Validate what Determined hands to a trial.

        :param hyperparameters: the sampled values, nested dictionaries of constants.
        :param data: the experiment configuration's `data` section.
        :raises SettingsError: with all wrong fields together, each with its path in the
            experiment configuration, the value received and what is allowed.
        """
        if "data" in hyperparameters:
            raise SettingsError.single(
                "hyperparameters.data",
                hyperparameters["data"],
                "data is a section of its own",
                "move it to the top level of the file",
                "data-in-hyperparameters",
            )
        given = {**hyperparameters, "data": dict(data)}
        settings = None
        try:
            settings = cls.model_validate(given)
            if settings.model.dtype == "float32":
                given = {**_in_float32(settings.model_dump()), "data": dict(data)}
                cls.model_validate(given)
        except ValidationError as error:
            problems = problems_from(error, cls, given)
            raise SettingsError(_of_float32(p, settings) for p in problems) from None
        return settings


def _in_float32(value: Any) -> Any:
    """A value with every number in it as float32 holds it; TensorFlow takes denormals for 0."""
    if isinstance(value, dict):
        return {name: _in_float32(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_in_float32, value))
    if not isinstance(value, float):
        return value
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return rounded if abs(rounded) >= 2.0**-126 else 0.0


def _of_float32(problem: Problem, settings: Settings | None) -> Problem:
    """A problem of the numbers that float32 makes of valid settings, if there are, told of them."""
    if settings is None:
        return problem
    received: Any = settings
    for name in problem.path.split(".")[1:]:
        received = received[int(name)] if isinstance(received, tuple) else getattr(received, name)
    return replace(
        problem,
        received=received,
        message=f"{problem.message}, and float32 makes it {problem.received}",
        remedy="set another value, or model.dtype: float64",
    )
