"""The blocked factorisation, and what it relies on of TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from natdgp.natgrad.factor import times_inverse_factor
from tests.unit.natgrad.problems import square_roots, with_eigenvalues

SIZES = [1, 2, 63, 64, 65, 127, 129, 200, 257, 300]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_tensorflows_cholesky_fails_by_nan_and_for_one_matrix_alone(jit_compile: bool) -> None:
    matrices = tf.constant([[[1.0, 0], [0, 1]], [[1, 2], [2, 1]], [[0, 0], [0, 0]]], tf.float64)
    factor = tf.function(tf.linalg.cholesky, jit_compile=jit_compile)(matrices)
    diagonal = tf.linalg.diag_part(factor).numpy()
    assert np.all(np.isfinite(diagonal[0]))
    for failed in diagonal[1:]:
        assert not np.all(np.isfinite(failed) & (failed > 0))
    if not jit_compile:
        np.testing.assert_array_equal(tf.linalg.cholesky(matrices)[1:, 0, 0], [np.nan, np.nan])


@pytest.mark.parametrize("M", SIZES)
def test_the_blocked_factor_is_the_factor(M: int) -> None:
    B = with_eigenvalues(M, np.random.default_rng(M).uniform(0.1, 10, size=(3, M)))
    L = square_roots(M, 3, M)
    new = times_inverse_factor(tf.constant(np.triu(B) - np.eye(M)), tf.constant(L)).numpy()
    np.testing.assert_array_equal(np.triu(new, 1), 0)
    assert np.all(np.diagonal(new, axis1=1, axis2=2) > 0)
    expected = L @ np.linalg.inv(B) @ np.transpose(L, (0, 2, 1))
    np.testing.assert_allclose(new @ np.transpose(new, (0, 2, 1)), expected, atol=1e-11)


@pytest.mark.parametrize("M", SIZES)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_matrix_that_is_not_definite_gives_nan_wherever_it_fails(M: int, place: str) -> None:
    C, index = np.zeros((3, M, M)), 0 if place == "first" else -1
    C[1, index, index] = -1.001
    L = tf.constant(np.tile(np.eye(M), (3, 1, 1)))
    new = times_inverse_factor(tf.constant(C), L).numpy()
    assert np.all(np.isfinite(new[[0, 2]]))
    assert np.any(np.isnan(new[1, :, 0]))
