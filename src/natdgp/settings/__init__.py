"""What a run is: its experiment file, read, validated and frozen."""

from natdgp.settings.experiment import Experiment, Search, read_experiment, read_search, validate
from natdgp.settings.problems import MISSING, Problem, SettingsError

__all__ = [
    "MISSING",
    "Experiment",
    "Problem",
    "Search",
    "SettingsError",
    "read_experiment",
    "read_search",
    "validate",
]
