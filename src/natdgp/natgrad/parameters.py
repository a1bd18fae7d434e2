"""Between GPflow's parameters, as they are stored, and the arrays the steps work on."""

from __future__ import annotations

from collections.abc import Callable

import gpflow
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp


def constrained_gradient(gradient: tf.Tensor, parameter: gpflow.Parameter) -> tf.Tensor:
    """dLoss/d(value) from dLoss/d(unconstrained variable), as tf.GradientTape gives it.

    The transforms of q_mu (none) and of a full q_sqrt (its triangle is packed into a vector) only
    move numbers, and so does the gradient. For an elementwise transform, as that of standard
    deviations, it is divided by the slope.
    """
    transform = parameter.transform
    if transform.forward_min_event_ndims > 0 or isinstance(transform, tfp.bijectors.Identity):
        return transform.forward(gradient)
    variable = parameter.unconstrained_variable
    return gradient * tf.exp(-transform.forward_log_det_jacobian(variable, event_ndims=0))


def assign(parameter: gpflow.Parameter, value: tf.Tensor) -> None:
    """Store a value that is known to be finite.

    For a packed lower triangle this is GPflow's assignment without the second half of its passes
    over the matrix: `Parameter.assign` folds the whole matrix, of which half is zeros, and looks
    for numbers that are not finite.
    """
    if _is_packed(parameter):
        parameter.unconstrained_variable.assign(packed_triangle(value), read_value=False)
    elif isinstance(parameter.transform, tfp.bijectors.Identity):
        parameter.unconstrained_variable.assign(value, read_value=False)
    else:
        parameter.assign(value, read_value=False)


def lower_triangle(parameter: gpflow.Parameter) -> tf.Tensor:
    """The value of a packed lower triangle, [P, M, M], with a gradient that is packed at once.

    The parameter's own value is the same; the gradient TensorFlow derives of its transform makes
    four more passes over the matrices. Whatever stands above the diagonal of an incoming gradient
    does not reach the parameter.
    """
    transform = parameter.transform
    if not _is_packed(parameter):
        return tf.convert_to_tensor(parameter)

    @tf.custom_gradient
    def unpacked(vector: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return transform.forward(vector), packed_triangle

    return unpacked(tf.convert_to_tensor(parameter.unconstrained_variable))


def _is_packed(parameter: gpflow.Parameter) -> bool:
    transform = parameter.transform
    packs = isinstance(transform, tfp.bijectors.FillTriangular)
    return packs and not transform.parameters["upper"]


def packed_triangle(L: tf.Tensor) -> tf.Tensor:
    """The lower triangle of [P, M, M] as [P, T], the inverse of TFP's `FillTriangular`.

    T = M (M + 1) / 2. TFP unpacks a vector x by writing x[M:] and then x backwards, M M numbers in
    all, as the rows of a matrix, of which it keeps the lower triangle. So x[j] stands at j - M and
    at M M - 1 - j, and one of the two is below the diagonal or on it.

    :param L: whatever stands above the diagonal is not read.
    """
    M = L.shape[-1]
    T = M * (M + 1) // 2
    flat = tf.reshape(L, [-1, M * M])
    backwards = tf.reverse(flat[:, M * M - T :], axis=[1])
    in_order = tf.pad(flat[:, : T - M], [[0, 0], [M, 0]])
    place = np.arange(T) - M
    return tf.where((place >= 0) & (place % M <= place // M), in_order, backwards)


def unpacked_triangle(packed: tf.Tensor) -> tf.Tensor:
    """The lower-triangular matrices [P, M, M] of :func:`packed_triangle`."""
    return tfp.math.fill_triangular(packed)


def are_finite(*gradients: tf.Tensor) -> tf.Tensor:
    """Whether all numbers of the gradients are; a sum is only if every term is."""
    finite = [tf.math.is_finite(tf.reduce_sum(gradient)) for gradient in gradients]
    return tf.reduce_all(tf.stack(finite))
