"""Natural-gradient steps on q(u): the mathematics on tensors, and the optimizer on top."""

from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.natgrad.step_divergence import step_kl, step_kl_diag
from natdgp.natgrad.steps import (
    Step,
    guaranteed_natural_step,
    guaranteed_natural_step_diag,
    mean_sqrt_step,
    mean_sqrt_step_diag,
    natural_step,
    natural_step_diag,
)

__all__ = [
    "NaturalGradient",
    "Step",
    "guaranteed_natural_step",
    "guaranteed_natural_step_diag",
    "mean_sqrt_step",
    "mean_sqrt_step_diag",
    "natural_step",
    "natural_step_diag",
    "step_kl",
    "step_kl_diag",
]
