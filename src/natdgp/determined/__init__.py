"""All that knows Determined's trials: the trial, its controller and its callbacks."""

from natdgp.determined.trial import DeepGPTrial

__all__ = ["DeepGPTrial"]
