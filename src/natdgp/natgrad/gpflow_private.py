"""All that is touched of GPflow's optimizer beyond its public face.

GPflux hands ready gradients to GPflow's optimizer through `_natgrad_apply_gradients`, and GPflow
has no public way to do so: that name is both what is overridden, so that GPflux's models run our
step, and what is called for the transformations only GPflow knows. A test fails when GPflow changes
what is relied on here.
"""

from __future__ import annotations

import abc
from types import SimpleNamespace

import gpflow
import tensorflow as tf
from gpflow.optimizers import XiTransform

_GPFLOW_STEP = gpflow.optimizers.NaturalGradient._natgrad_apply_gradients
"""Bound here, for whoever puts another class in the place of GPflow's later."""


class GPflowNaturalGradient(gpflow.optimizers.NaturalGradient, abc.ABC):
    """GPflow's optimizer, with the step it takes on ready gradients made public and open."""

    @abc.abstractmethod
    def apply_one(
        self,
        q_mu_grad: tf.Tensor,
        q_sqrt_grad: tf.Tensor,
        q_mu: gpflow.Parameter,
        q_sqrt: gpflow.Parameter,
        xi_transform: XiTransform | None,
    ) -> None:
        """Take one step with gradients in unconstrained space; the whole of an iteration."""

    def _natgrad_apply_gradients(
        self,
        q_mu_grad: tf.Tensor,
        q_sqrt_grad: tf.Tensor,
        q_mu: gpflow.Parameter,
        q_sqrt: gpflow.Parameter,
        xi_transform: XiTransform | None = None,
    ) -> None:
        self.apply_one(q_mu_grad, q_sqrt_grad, q_mu, q_sqrt, xi_transform)


def gpflow_step(
    q_mu_grad: tf.Tensor,
    q_sqrt_grad: tf.Tensor,
    q_mu: gpflow.Parameter,
    q_sqrt: gpflow.Parameter,
    xi_transform: XiTransform,
    gamma: tf.Tensor,
) -> None:
    """GPflow's own step, for a transformation that has no closed form here.

    GPflow reads nothing of its optimizer but gamma and the default transformation; handing it those
    alone lets gamma be a tensor, as a schedule needs, without an optimizer whose gamma changes.
    """
    _GPFLOW_STEP(
        SimpleNamespace(gamma=gamma, xi_transform=xi_transform),
        q_mu_grad,
        q_sqrt_grad,
        q_mu,
        q_sqrt,
        xi_transform,
    )
