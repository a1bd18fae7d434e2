"""Which function steps a q(u), by what an optimizer is told."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gpflow.optimizers import XiNat, XiSqrtMeanVar, XiTransform

from natdgp.natgrad import steps
from natdgp.natgrad.safeguards import (
    Divergence,
    SafeStepFunction,
    StepFunction,
    first_valid,
    within,
)
from natdgp.natgrad.step_divergence import step_kl, step_kl_diag

PositiveDefinite = Literal["exact", "guaranteed", "fallback"]
"""What to do where the exact step leads to no Gaussian."""


class _Functions(NamedTuple):
    """The steps for one form of q(u)."""

    natural: StepFunction
    guaranteed: StepFunction
    mean_sqrt: StepFunction
    kl: Divergence


_FULL = _Functions(
    steps.natural_step,
    steps.guaranteed_natural_step,
    steps.mean_sqrt_step,
    step_kl,
)

_DIAGONAL = _Functions(
    steps.natural_step_diag,
    steps.guaranteed_natural_step_diag,
    steps.mean_sqrt_step_diag,
    step_kl_diag,
)


def has_closed_form(xi_transform: XiTransform) -> bool:
    """Whether the step that is straight in these parameters is known in closed form."""
    return type(xi_transform) in (XiNat, XiSqrtMeanVar)


def step_function(
    xi_transform: XiTransform,
    positive_definite: PositiveDefinite,
    max_kl: float | None,
    *,
    is_diagonal: bool,
) -> SafeStepFunction:
    """The step in closed form.

    :param xi_transform: what the step is straight in; see :func:`has_closed_form`.
    :param positive_definite: what to do where it leads to no Gaussian.
    :param max_kl: the largest KL(q_new || q_old), or None.
    :param is_diagonal: whether q_sqrt is [M, P], standard deviations, and not [P, M, M].
    """
    functions = _DIAGONAL if is_diagonal else _FULL
    correction = None if positive_definite == "exact" else functions.guaranteed
    if isinstance(xi_transform, XiSqrtMeanVar):
        step = first_valid(functions.mean_sqrt, correction=correction)
    elif positive_definite == "guaranteed":
        step = first_valid(functions.guaranteed)
    else:
        step = first_valid(functions.natural, correction=correction)
    return step if max_kl is None else within(max_kl, functions.kl, step)
