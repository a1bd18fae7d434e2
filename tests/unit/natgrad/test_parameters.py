"""Values and gradients in and out of GPflow's parameters."""

from __future__ import annotations

from typing import TypeAlias

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


TRIANGLE, POSITIVE = gpflow.utilities.triangular(), gpflow.utilities.positive()
UPPER = tfp.bijectors.FillTriangular(upper=True)
LOWEST = gpflow.utilities.positive(lower=0.1, base="exp")
Transform: TypeAlias = tfp.bijectors.Bijector | None

NUMBERS = np.arange(1.0, 33).reshape(2, 4, 4)


@pytest.mark.parametrize(
    ("transform", "value"),
    [
        (TRIANGLE, np.tril(NUMBERS)),
        (UPPER, np.triu(NUMBERS)),
        (None, NUMBERS),
        (POSITIVE, NUMBERS),
        (LOWEST, NUMBERS),
    ],
)
def test_a_value_assigned_is_read_and_its_gradient_is_constrained(
    transform: Transform, value: FloatArray
) -> None:
    parameter = gpflow.Parameter(value, transform=transform)
    assign(parameter, tf.constant(2 * value))
    np.testing.assert_allclose(parameter.numpy(), 2 * value, rtol=1e-12)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.convert_to_tensor(parameter) ** 3)
    gradient = tape.gradient(loss, parameter.unconstrained_variable)
    found = constrained_gradient(gradient, parameter)
    np.testing.assert_allclose(found, 12 * value**2, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("transform", [TRIANGLE, UPPER, POSITIVE, None])
def test_a_matrix_read_is_the_parameter_and_so_is_its_gradient(transform: Transform) -> None:
    generator = np.random.default_rng(0)
    value = np.tril(generator.uniform(0.1, 1, size=(2, 4, 4))) + 0.1
    shaped = np.triu(value) if transform is UPPER else np.tril(value)
    parameter = gpflow.Parameter(
        value if transform in (POSITIVE, None) else shaped, transform=transform
    )
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
