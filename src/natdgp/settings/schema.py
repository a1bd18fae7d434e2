"""What a run is: the settings of every room, read from `hyperparameters` and `data`.

Raw dictionaries stop here. Every other room receives these objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import ConfigDict, ValidationError, field_validator, model_validator

from natdgp.data.data_settings import DataSettings
from natdgp.fields import Frozen, PositiveInt, Refused
from natdgp.models.model_settings import ModelSettings
from natdgp.natgrad.natgrad_settings import NaturalGradientSettings
from natdgp.settings.problems import Problem, SettingsError, note_valid, problems_from
from natdgp.training.training_settings import (
    AdamSettings,
    EarlyStoppingSettings,
    EvaluationSettings,
    PlateauSettings,
)


class Settings(Frozen):
    """Everything a trial needs to know: Determined's `hyperparameters`, and `data`."""

    model_config = ConfigDict(validate_default=True)  # so that defaults are noted, too
    _note = field_validator("*", mode="wrap")(note_valid)

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
        layers = range(self.model.gp_layers)
        if isinstance(chosen, tuple) and list(chosen) != sorted({*chosen} & {*layers}):
            raise Refused(
                "no-such-layer",
                f"natural_gradient.layers is {list(chosen)} but there are {len(layers)} GP layers",
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
        return self.natural_gradient.layers_of(self.model.gp_layers)

    @classmethod
    def read(
        cls,
        hyperparameters: Mapping[str, Any],
        data: Mapping[str, Any],
        valid: dict[str, Any] | None = None,
    ) -> Settings:
        """Validate what Determined hands to a trial.

        :param hyperparameters: the sampled values, nested dictionaries of constants.
        :param data: the experiment configuration's `data` section.
        :param valid: takes the fields that are valid in themselves, whatever is wrong.
        :raises SettingsError: with all wrong fields together, each with its path in the
            experiment configuration, the value received and what is allowed.
        """
        if "data" in hyperparameters:
            path, received = "hyperparameters.data", hyperparameters["data"]
            message, remedy = "data is a section of its own", "move it to the top level of the file"
            raise SettingsError.single(path, received, message, remedy, "data-in-hyperparameters")
        given = {**hyperparameters, "data": dict(data)}
        try:
            settings = cls.model_validate(given, context=valid)
        except ValidationError as error:
            raise SettingsError(problems_from(error, cls)) from None
        if settings.model.dtype == "float32":
            given = settings.model_dump(exclude={"data"})
            if lost := list(_lost_in_float32(given, "hyperparameters")):
                raise SettingsError(lost)
        return settings


def _lost_in_float32(value: Any, path: str) -> Iterator[Problem]:
    """Problems of numbers that float32 makes 0 or infinite; TensorFlow takes denormals for 0."""
    if isinstance(value, dict | tuple):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _lost_in_float32(inner, f"{path}.{name}")
    elif isinstance(value, float) and value:
        limits = np.finfo(np.float32)
        if not limits.tiny <= abs(value) <= limits.max:
            message = f"float32 makes it {'inf' if abs(value) > 1 else '0.0'}"
            remedy = "set another value, or model.dtype: float64"
            yield Problem(path, value, message, remedy, "out-of-range")
