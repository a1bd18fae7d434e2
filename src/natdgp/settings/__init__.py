"""What a run is: its experiment file, read, validated and frozen."""

from natdgp.settings.experiment import Experiment, Search, read_experiment, read_search
from natdgp.settings.problems import Problem, SettingsError

__all__ = [
    "Experiment",
    "Problem",
    "Search",
    "SettingsError",
    "read_experiment",
    "read_search",
]
