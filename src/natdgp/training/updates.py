"""What one step changes: q(u) by natural gradients, every other variable by one Keras optimizer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gpflux
import tensorflow as tf

from natdgp.models.layers.gp import Posterior
from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.natgrad.parameters import are_finite, lower_triangle, packed_triangle, unpacked_triangle
from natdgp.natgrad.safeguards import numbers_of

logger = logging.getLogger("natdgp.training")

MAX_REFUSED = 100
"""Steps in a row with gradients that are not finite before training stops."""


class Gradients(NamedTuple):
    """Of the mean loss of a row."""

    q: tuple[Posterior, ...]
    """By q_mu [M, P] and by the matrices q_sqrt [P, M, M] of each natural-gradient layer."""
    others: tuple[tf.Tensor, ...]
    """By every other variable."""

    def packed(self) -> list[tf.Tensor]:
        """All of them in a list, to travel; of q_sqrt [P, M (M + 1) / 2], the lower triangles."""
        packed = [q._replace(q_sqrt=packed_triangle(q.q_sqrt)) for q in self.q]
        return [*tf.nest.flatten(packed), *self.others]

    def unpacked(self, packed: Sequence[tf.Tensor]) -> Gradients:
        """The inverse of :meth:`packed`, for gradients by the same variables."""
        pairs = zip(packed[: 2 * len(self.q) : 2], packed[1 : 2 * len(self.q) : 2], strict=True)
        q = tuple(Posterior(q_mu, unpacked_triangle(q_sqrt)) for q_mu, q_sqrt in pairs)
        return Gradients(q, tuple(packed[2 * len(self.q) :]))


def with_zeros(gradients: Any, of: Any) -> Any:
    """Gradients as tensors, zeros for what the loss does not depend on, which the log names.

    :param gradients: as a tape gives them, in any nesting.
    :param of: what they were taken of, in the same nesting.
    """
    filled, unused = [], []
    for gradient, one in zip(tf.nest.flatten(gradients), tf.nest.flatten(of), strict=True):
        if gradient is None:
            unused.append(getattr(one, "name", "q(u)"))
        filled.append(tf.zeros_like(one) if gradient is None else tf.convert_to_tensor(gradient))
    if unused:
        logger.warning("the loss does not depend on %s: it will not train", ", ".join(unused))
    return tf.nest.pack_sequence_as(gradients, filled)


def posterior_of(layer: gpflux.layers.GPLayer) -> Posterior:
    """q(u) of any GPflux layer as tensors."""
    return Posterior(tf.convert_to_tensor(layer.q_mu), lower_triangle(layer.q_sqrt))


def other_variables(
    variables: Sequence[tf.Variable], layers: Sequence[gpflux.layers.GPLayer]
) -> list[tf.Variable]:
    """Those of the variables that do not belong to q(u) of the layers, in their order."""
    taken = {
        parameter.unconstrained_variable.ref()
        for layer in layers
        for parameter in (layer.q_mu, layer.q_sqrt)
    }
    return [variable for variable in variables if variable.ref() not in taken]


class Updates:
    """The optimizers of a model, and the one decision whether they step."""

    def __init__(
        self,
        layers: Sequence[gpflux.layers.GPLayer],
        natural: Sequence[NaturalGradient],
        other: tf.keras.optimizers.Optimizer,
        variables: Sequence[tf.Variable],
        refused: tf.Variable,
    ) -> None:
        """:param layers: whose q(u) natural gradients train, each with its `num_data`, N.
        :param natural: one optimizer for each of the layers.
        :param other: the optimizer of every other variable.
        :param variables: these.
        :param refused: int64 [2], steps that were refused: in a row until now, and in all.
        """
        self.layers = layers
        self.natural = natural
        self._other = other
        self._variables = variables
        self._refused = refused

    def step(self, posteriors: Sequence[Posterior], gradients: Gradients) -> None:
        """One step of all optimizers; none, if a gradient is not finite.

        Gradients of the mean loss are multiplied by N for q(u): gamma is the step length on the
        whole negative ELBO. With gradients of the mean, as GPflux takes them, it would be gamma/N.

        :param posteriors: q(u) of each natural-gradient layer.
        :param gradients: of the mean loss of a row, by these and by the other variables.
        """
        proposed: list[Callable[[], None]] = []
        # The last layer first: its gradient is the first that the backward pass knows.
        for index in reversed(range(len(self.layers))):
            layer, optimizer, q = self.layers[index], self.natural[index], gradients.q[index]
            with tf.name_scope(f"natural_gradient_{layer.name}"):
                N = layer.num_data
                proposed.append(
                    _proposed(layer, optimizer, posteriors[index], q.q_mu * N, q.q_sqrt * N)
                )

        def go() -> None:
            for adopt in proposed:
                adopt()
            self._step_others(gradients.others)

        self.if_finite(are_finite(*tf.nest.flatten(gradients)), go)

    def _step_others(self, gradients: Sequence[tf.Tensor]) -> None:
        self._other.apply_gradients(zip(gradients, self._variables, strict=True))

    def step_sharded(
        self, gradients: Sequence[tf.Tensor], finite: tf.Tensor, adopt: Callable[[], None]
    ) -> None:
        """The same where q(u) was stepped elsewhere.

        :param gradients: of the mean loss of a row, by the other variables.
        :param finite: whether all gradients of the step are.
        :param adopt: stores the new q(u).
        """

        def go() -> None:
            adopt()
            self._step_others(gradients)

        self.if_finite(finite, go)

    def if_finite(self, finite: tf.Tensor, go: Callable[[], None]) -> None:
        """Take a step, or count it as refused.

        :raises tf.errors.InvalidArgumentError: after `MAX_REFUSED` refused steps in a row.
        """

        def taken() -> None:
            self._refused[0].assign(tf.zeros([], tf.int64))
            go()

        def refused() -> None:
            count = self._refused.assign_add(tf.ones([2], tf.int64))
            tf.debugging.Assert(count[0] < MAX_REFUSED, [_TOO_MANY_REFUSED])

        tf.cond(finite, taken, refused)


def _proposed(
    layer: gpflux.layers.GPLayer,
    optimizer: NaturalGradient,
    q: Posterior,
    q_mu_grad: tf.Tensor,
    q_sqrt_grad: tf.Tensor,
) -> Callable[[], None]:
    """Compute where a layer's step leads; returns what takes it there."""
    if not optimizer.has_closed_form:
        packed = packed_triangle(q_sqrt_grad)
        return lambda: optimizer.apply_one(q_mu_grad, packed, layer.q_mu, layer.q_sqrt)
    step = optimizer.propose(q.q_mu, q.q_sqrt, q_mu_grad, q_sqrt_grad)
    new, numbers = packed_triangle(step.q_sqrt), numbers_of(step)
    return lambda: optimizer.adopt(layer.q_mu, layer.q_sqrt, step.q_mu, new, numbers, True)


_TOO_MANY_REFUSED = (
    f"the gradients were not finite {MAX_REFUSED} times in a row, and the parameters are as before;"
    " look for overflow in the loss, lower hyperparameters.adam.learning_rate, or train in float64"
)
