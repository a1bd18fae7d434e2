"""From settings to a `gpflux.models.DeepGP`."""

from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.deep_gp import DeepGP, GPLayer
from natdgp.models.inducing import TooFewRows
from natdgp.models.noise import SamplingNoise, Stream

__all__ = [
    "DeepGP",
    "GPLayer",
    "SamplingNoise",
    "Stream",
    "TaskShape",
    "TooFewRows",
    "build_deep_gp",
]
