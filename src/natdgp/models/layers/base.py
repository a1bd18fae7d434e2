"""What a deep GP asks of a layer, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import tensorflow as tf

from natdgp.models.noise import Draws

if TYPE_CHECKING:
    from natdgp.models.layers.gp import Posterior


class Observations(NamedTuple):
    """What a layer may see of training rows besides its inputs."""

    X: tf.Tensor
    """[n, D], the first layer's inputs."""
    Y: tf.Tensor
    """[n, Q], the targets."""
    rows: tf.Tensor | None = None
    """[n] int64, which training rows these are, from 0 to N - 1; None where that is not known."""


class Passed(NamedTuple):
    """Rows on their way through the layers."""

    F: tf.Tensor
    """[S, n, Q], samples of a layer's outputs."""
    local_kl: tf.Tensor | None = None
    """[n] or [S, n], KL[q(w) || p(w)] of latent variables that each row has of its own, in nats;
    None where there are none."""


class Layer(Protocol):
    """One layer of a deep GP."""

    name: str

    def posterior(self) -> Posterior | None:
        """q(u) as tensors; None for a layer without inducing variables."""

    def propagate(
        self,
        F: tf.Tensor,
        q: Posterior | None,
        draws: Draws,
        index: int,
        observations: Observations | None = None,
    ) -> Passed:
        """Samples of the layer's outputs at samples of its inputs.

        :param F: [S, n, D], or [1, n, D] where all samples share their inputs.
        :param q: the layer's :meth:`posterior`.
        :param draws: the standard normal numbers that samples are made of.
        :param index: the layer's, for numbers of its own.
        :param observations: what the rows are, in training alone.
        """

    def kl(self, q: Any) -> tf.Tensor | float:
        """KL[q(u) || p(u)] of the layer's :meth:`posterior`, in nats; 0 without one."""

    def parts(self) -> Mapping[str, Any]:
        """What it is made of besides its variables, by name: modules and plain values."""
