"""What a run is: the settings of every room, read from `hyperparameters` and `data`.

Raw dictionaries stop here. Every other room receives these objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError, model_validator

from natdgp.data.settings import DataSettings
from natdgp.fields import Frozen, PositiveInt
from natdgp.models.settings import ModelSettings
from natdgp.natgrad.settings import NaturalGradientSettings
from natdgp.settings.problems import SettingsError, problems_from
from natdgp.training.settings import (
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
        if isinstance(chosen, tuple):
            wrong = [index for index in chosen if index >= self.model.layers]
            if wrong or len(set(chosen)) != len(chosen):
                raise ValueError(
                    f"natural_gradient.layers is {list(chosen)} but model.layers is "
                    f"{self.model.layers}; list distinct indices from 0 to {self.model.layers - 1}"
                )
        return self

    @model_validator(mode="after")
    def _one_master_of_the_learning_rate(self) -> Settings:
        if self.reduce_lr_on_plateau is not None and self.adam.schedule.name != "constant":
            raise ValueError(
                f"reduce_lr_on_plateau and adam.schedule ({self.adam.schedule.name}) would both "
                "set the learning rate; drop one of them"
            )
        return self

    @property
    def natural_gradient_layers(self) -> tuple[int, ...]:
        """Indices of the layers whose q(u) natural gradients train, in order."""
        chosen = self.natural_gradient.layers
        if isinstance(chosen, tuple):
            return tuple(sorted(chosen))
        everything = tuple(range(self.model.layers))
        return {"all": everything, "last": everything[-1:], "none": ()}[chosen]

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
            )
        try:
            return cls.model_validate({**hyperparameters, "data": dict(data)})
        except ValidationError as error:
            raise SettingsError(problems_from(error, cls)) from None
