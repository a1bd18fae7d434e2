"""The natural-gradient steps of a model's layers, from gradients of its mean loss per row.

They are multiplied by N: gamma is the step length on the whole negative ELBO. With gradients of the
mean, as GPflux takes them, it would be gamma / N.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gpflow
import gpflux
import tensorflow as tf

from natdgp.natgrad.optimizer import NaturalGradient, are_finite, numbers_of
from natdgp.natgrad.parameters import packed_triangle


def variational_parameters(
    layers: Sequence[gpflux.layers.GPLayer],
) -> list[gpflow.Parameter]:
    """q_mu and q_sqrt of the first layer, then of the second, and so on."""
    return [parameter for layer in layers for parameter in (layer.q_mu, layer.q_sqrt)]


def other_variables(
    variables: Sequence[tf.Variable], layers: Sequence[gpflux.layers.GPLayer]
) -> list[tf.Variable]:
    """Those of the variables that do not belong to q(u) of the layers, in their order."""
    taken = {p.unconstrained_variable.ref() for p in variational_parameters(layers)}
    return [variable for variable in variables if variable.ref() not in taken]


def step_naturally(
    layers: Sequence[gpflux.layers.GPLayer],
    optimizers: Sequence[NaturalGradient],
    gradients: Sequence[tf.Tensor],
) -> None:
    """One natural-gradient step on q(u) of each layer.

    :param layers: with their `num_data`, N.
    :param optimizers: one for each layer.
    :param gradients: with respect to the unconstrained variables of
        :func:`variational_parameters`.
    """
    for layer, optimizer, q_mu_grad, q_sqrt_grad in _last_first(layers, optimizers, gradients):
        optimizer.apply_gradients([((q_mu_grad, q_sqrt_grad), (layer.q_mu, layer.q_sqrt))])


def step_from_matrices(
    layers: Sequence[gpflux.layers.GPLayer],
    optimizers: Sequence[NaturalGradient],
    q_sqrts: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
) -> None:
    """The same, where q_sqrt has been unpacked already and its gradient is not packed.

    :param q_sqrts: q_sqrt of every layer, [P, M, M].
    :param gradients: with respect to q_mu and to the matrices, first of the first layer.
    """
    values = zip(_last_first(layers, optimizers, gradients), reversed(q_sqrts), strict=True)
    for (layer, optimizer, q_mu_grad, q_sqrt_grad), q_sqrt in values:
        q_mu = tf.convert_to_tensor(layer.q_mu)
        step = optimizer.propose(q_mu, q_sqrt, q_mu_grad, q_sqrt_grad)
        optimizer.adopt(
            layer.q_mu,
            layer.q_sqrt,
            step.q_mu,
            packed_triangle(step.q_sqrt),
            numbers_of(step),
            are_finite(q_mu_grad, q_sqrt_grad),
        )


def _last_first(
    layers: Sequence[gpflux.layers.GPLayer],
    optimizers: Sequence[NaturalGradient],
    gradients: Sequence[tf.Tensor],
) -> Iterator[tuple[gpflux.layers.GPLayer, NaturalGradient, tf.Tensor, tf.Tensor]]:
    """Each layer with its optimizer and gradients of the whole loss, in its name's scope.

    The last layer comes first: its gradient is the first that the backward pass knows, and
    operations that may raise, as these, run in the order they are given in.
    """
    for index in reversed(range(len(layers))):
        layer = layers[index]
        q_mu_grad, q_sqrt_grad = gradients[2 * index : 2 * index + 2]
        with tf.name_scope(f"natural_gradient_{layer.name}"):
            yield (
                layer,
                optimizers[index],
                q_mu_grad * layer.num_data,
                q_sqrt_grad * layer.num_data,
            )
