"""The natural-gradient steps of a model's layers, from gradients of its mean loss per row."""

from __future__ import annotations

from collections.abc import Sequence

import gpflow
import gpflux
import tensorflow as tf

from natdgp.natgrad import NaturalGradient


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
    :param gradients: of the mean loss per row with respect to the unconstrained variables of
        :func:`variational_parameters`. They are multiplied by N: gamma is the step length on the
        whole negative ELBO. With gradients of the mean, as GPflux takes them, it would be gamma/N.
    """
    # The last layer first: its gradient is the first that the backward pass knows, and operations
    # that may raise, as these, run in the order they are given in.
    for index in reversed(range(len(layers))):
        layer = layers[index]
        q_mu_grad, q_sqrt_grad = (
            gradient * layer.num_data for gradient in gradients[2 * index : 2 * index + 2]
        )
        with tf.name_scope(f"natural_gradient_{layer.name}"):
            optimizers[index].apply_gradients(
                [((q_mu_grad, q_sqrt_grad), (layer.q_mu, layer.q_sqrt))]
            )
