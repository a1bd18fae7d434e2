"""Between GPflow's parameters, as they are stored, and the arrays the steps work on."""

from __future__ import annotations

from collections.abc import Callable

import gpflow
import numpy as np
import numpy.typing as npt
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
        return transform.forward(vector), lambda bar: packed_triangle(
            tf.linalg.band_part(bar, -1, 0)
        )

    return unpacked(tf.convert_to_tensor(parameter.unconstrained_variable))


def _is_packed(parameter: gpflow.Parameter) -> bool:
    transform = parameter.transform
    packs = isinstance(transform, tfp.bijectors.FillTriangular)
    return packs and not transform.parameters["upper"]


def packed_triangle(L: tf.Tensor) -> tf.Tensor:
    """[P, M, M] lower triangular to [P, M (M + 1) / 2], the inverse of TFP's `FillTriangular`.

    TFP winds the triangle up in a spiral: the vector starts with the last row, backwards, and goes
    on with the other rows, whose upper half of zeros is filled with the lower half turned around.
    The rows after the first half hold nothing that is not in that already.
    """
    shape = tf.shape(L)
    P, M = shape[0], shape[1]
    others = tf.reshape(L[:, :-1, :], [P, M * (M - 1)])
    half = M * (M - 1) // 2
    wound = others[:, :half] + tf.reverse(others[:, half:], axis=[1])
    return tf.concat([tf.reverse(L[:, -1, :], axis=[1]), wound], axis=1)


def packed_diagonal(M: int) -> npt.NDArray[np.int64]:
    """Where the diagonal of an [M, M] triangle stands in the vector it is packed into, [M]."""
    flat = np.arange(M, dtype=np.int64) * (M + 1)
    return np.where(flat < M * (M - 1) // 2, flat + M, M * M - 1 - flat)
