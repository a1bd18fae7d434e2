"""Values and gradients in and out of GPflow's parameters."""

from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from natdgp.natgrad.parameters import (
    assign,
    constrained_gradient,
    lower_triangle,
    packed_triangle,
    unpacked_triangle,
)
from tests.unit.natgrad.problems import FloatArray


@pytest.mark.parametrize("M", [1, 2, 3, 4, 7, 10, 101])
def test_a_triangle_is_packed_as_tfp_packs_it(M: int) -> None:
    A = np.random.default_rng(M).normal(size=(3, M, M))
    L = np.tril(A)
    packed = packed_triangle(tf.constant(A))
    np.testing.assert_array_equal(packed, tfp.math.fill_triangular_inverse(tf.constant(L)))
    np.testing.assert_array_equal(unpacked_triangle(packed), L)


@pytest.mark.parametrize(
    ("transform", "value"),
    [
        (gpflow.utilities.triangular(), np.tril(np.arange(1.0, 19).reshape(2, 3, 3))),
        (tfp.bijectors.FillTriangular(upper=True), np.triu(np.ones((2, 3, 3)))),
        (None, np.arange(6.0).reshape(3, 2)),
        (gpflow.utilities.positive(), np.arange(1.0, 7).reshape(3, 2)),
    ],
)
def test_a_value_assigned_is_the_value_read(
    transform: tfp.bijectors.Bijector | None, value: FloatArray
) -> None:
    parameter = gpflow.Parameter(value, transform=transform)
    assign(parameter, tf.constant(2 * value))
    np.testing.assert_allclose(parameter.numpy(), 2 * value, rtol=1e-12)


@pytest.mark.parametrize(
    ("transform", "value"),
    [
        (gpflow.utilities.triangular(), np.tril(np.ones((2, 4, 4)))),
        (gpflow.utilities.positive(), np.arange(1.0, 7).reshape(3, 2)),
        (gpflow.utilities.positive(lower=0.1, base="exp"), np.arange(1.0, 7).reshape(3, 2)),
        (None, np.arange(6.0).reshape(3, 2)),
    ],
)
def test_gradients_are_those_of_the_value(
    transform: tfp.bijectors.Bijector | None, value: FloatArray
) -> None:
    parameter = gpflow.Parameter(value, transform=transform)
    with tf.GradientTape() as tape:
        constrained = tf.convert_to_tensor(parameter)
        loss = tf.reduce_sum(constrained**3)
    gradient = tape.gradient(loss, parameter.unconstrained_variable)
    np.testing.assert_allclose(
        constrained_gradient(gradient, parameter), 3 * value**2, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize(
    "transform",
    [
        gpflow.utilities.triangular(),
        tfp.bijectors.FillTriangular(upper=True),
        gpflow.utilities.positive(),
        None,
    ],
)
def test_a_matrix_read_is_the_parameter_and_so_is_its_gradient(
    transform: tfp.bijectors.Bijector | None,
) -> None:
    generator = np.random.default_rng(0)
    value = np.tril(generator.uniform(0.1, 1, size=(2, 4, 4))) + 0.1
    if isinstance(transform, tfp.bijectors.FillTriangular):
        value = np.triu(value) if transform.parameters["upper"] else np.tril(value)
    parameter = gpflow.Parameter(value, transform=transform)
    bar = tf.constant(generator.normal(size=(2, 4, 4)))  # not triangular
    with tf.GradientTape(persistent=True) as tape:
        ours, theirs = lower_triangle(parameter), tf.convert_to_tensor(parameter)
    np.testing.assert_array_equal(ours, theirs)
    variable = parameter.unconstrained_variable
    np.testing.assert_allclose(
        tape.gradient(ours, variable, output_gradients=bar),
        tape.gradient(theirs, variable, output_gradients=bar),
        rtol=1e-14,
    )
