"""What a run is: its experiment file, read, validated and frozen."""

from natdgp.settings.experiment import Experiment, read_experiment, validate
from natdgp.settings.hyperparameters import constant_hyperparameters
from natdgp.settings.metrics import VALIDATION_METRICS
from natdgp.settings.problems import MISSING, Problem, SettingsError
from natdgp.settings.schema import (
    AdamSettings,
    ConstantSchedule,
    CosineSchedule,
    DataSettings,
    EarlyStoppingSettings,
    EvaluationSettings,
    ExponentialSchedule,
    FlightsSettings,
    GaussianSettings,
    KernelSettings,
    LikelihoodSettings,
    ModelSettings,
    NaturalGradientSettings,
    PerEpochSchedule,
    PlateauSettings,
    ScheduleSettings,
    Settings,
    SplitSettings,
    StudentTSettings,
    TableSettings,
)

__all__ = [
    "MISSING",
    "VALIDATION_METRICS",
    "AdamSettings",
    "ConstantSchedule",
    "CosineSchedule",
    "DataSettings",
    "EarlyStoppingSettings",
    "EvaluationSettings",
    "Experiment",
    "ExponentialSchedule",
    "FlightsSettings",
    "GaussianSettings",
    "KernelSettings",
    "LikelihoodSettings",
    "ModelSettings",
    "NaturalGradientSettings",
    "PerEpochSchedule",
    "PlateauSettings",
    "Problem",
    "ScheduleSettings",
    "Settings",
    "SettingsError",
    "SplitSettings",
    "StudentTSettings",
    "TableSettings",
    "constant_hyperparameters",
    "read_experiment",
    "validate",
]
