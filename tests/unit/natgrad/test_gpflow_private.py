"""What is relied on of GPflow's private parts; a failure here says that GPflow changed them."""

from __future__ import annotations

import inspect
from typing import Any

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from gpflow.optimizers import XiNat, XiSqrtMeanVar

from natdgp.natgrad.gpflow_private import GPflowNaturalGradient, gpflow_step
from natdgp.natgrad.optimizer import NaturalGradient
from tests.unit.natgrad.problems import Problem, problem_of, square_roots

NAME = "_natgrad_apply_gradients"
ARGUMENTS = ["self", "q_mu_grad", "q_sqrt_grad", "q_mu", "q_sqrt", "xi_transform"]


def _problem() -> Problem:
    C = np.tile(np.diag([0.5, -0.3, 1.0]), (2, 1, 1))
    return problem_of(square_roots(0, 2, 3), C)


def test_gpflow_and_we_have_the_method_with_the_same_arguments() -> None:
    for owner in (gpflow.optimizers.NaturalGradient, GPflowNaturalGradient):
        assert list(inspect.signature(getattr(owner, NAME)).parameters) == ARGUMENTS


def test_gpflow_reads_nothing_else_of_its_optimizer() -> None:
    for xi in (XiNat(), XiSqrtMeanVar()):
        problem = _problem()
        ours, theirs = problem.parameters(), problem.parameters()
        gpflow_step(*problem.packed(), *ours, xi, tf.constant(0.3, tf.float64))
        getattr(gpflow.optimizers.NaturalGradient(0.3, xi), NAME)(*problem.packed(), *theirs)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
            assert not np.array_equal(a.numpy(), problem.q_mu)


@pytest.mark.parametrize("place", [gpflow.optimizers, gpflow.optimizers.natgrad])
def test_our_class_may_stand_in_the_place_of_gpflows(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "NaturalGradient", NaturalGradient)
    problem = _problem()
    q_mu, q_sqrt = problem.parameters()
    gpflow_step(*problem.packed(), q_mu, q_sqrt, XiNat(), tf.constant(0.3, tf.float64))
    assert not np.array_equal(q_mu.numpy(), problem.q_mu)
