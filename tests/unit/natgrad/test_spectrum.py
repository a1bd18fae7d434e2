"""The estimate of the smallest eigenvalue."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from natdgp.natgrad.spectrum import ITERATIONS, lowest_eigenvalue
from tests.unit.natgrad.problems import FloatArray, with_eigenvalues


def _estimate(C: FloatArray, dtype: str = "float64") -> FloatArray:
    estimate: FloatArray = lowest_eigenvalue(tf.constant(np.triu(C), dtype)).numpy()
    return estimate


@pytest.mark.parametrize("M", range(1, ITERATIONS + 1))
def test_it_is_exact_for_as_many_rows_as_products(M: int) -> None:
    eigenvalues = np.random.default_rng(M).uniform(-100, 100, size=(20, M))
    estimate = _estimate(with_eigenvalues(M, eigenvalues))
    np.testing.assert_allclose(estimate, np.minimum(eigenvalues.min(axis=1), 0), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("M", [20, 100])
def test_it_is_right_to_a_fifth_on_a_spectrum_without_gaps(M: int, dtype: str) -> None:
    eigenvalues = np.random.default_rng(M).uniform(-100, 100, size=(50, M))
    ratio = _estimate(with_eigenvalues(M, eigenvalues), dtype) / eigenvalues.min(axis=1)
    assert np.all((ratio > 0.75) & (ratio < 1.25))
    assert abs(np.median(ratio) - 1) < 0.1


def test_a_diagonal_a_zero_and_a_positive_definite_matrix_are_no_exceptions() -> None:
    C = np.stack([np.diag([3.0, -2.0, -2.0, 3.0]), np.zeros((4, 4)), np.eye(4)])
    np.testing.assert_allclose(_estimate(C), [-2, 0, 0], atol=1e-9)


@pytest.mark.parametrize("worst", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_do_not_raise(worst: float) -> None:
    C = np.tile(np.diag([1.0, -2.0, 5.0]), (2, 1, 1))
    C[1, 0, 2] = worst
    np.testing.assert_allclose(_estimate(C)[0], -2, rtol=1e-9)
