"""The training model: its step, what it reports, and its schedules."""

from natdgp.checkpoint.weights import check_shapes_of_weights, load_weights
from natdgp.training.aggregation import Aggregation, Aggregator
from natdgp.training.builder import build_optimizers, build_training_model
from natdgp.training.diagnosis import explain_breakdown, explain_failure
from natdgp.training.drift import Drift, check_drift
from natdgp.training.memory import too_large_a_batch
from natdgp.training.model import NatGradModel
from natdgp.training.schedules import gamma_at, learning_rate_at, learning_rate_in_epoch
from natdgp.training.wrapper import NatGradWrapper

__all__ = [
    "Aggregation",
    "Aggregator",
    "Drift",
    "NatGradModel",
    "NatGradWrapper",
    "build_optimizers",
    "build_training_model",
    "check_drift",
    "check_shapes_of_weights",
    "explain_breakdown",
    "explain_failure",
    "gamma_at",
    "learning_rate_at",
    "learning_rate_in_epoch",
    "load_weights",
    "too_large_a_batch",
]
