from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from natdgp.models.inducing import ROWS_PER_CENTRE, TooFewRows, kmeans_inducing_points
from tests.conftest import FloatArray


def _rows(num_rows: int = 400, width: int = 3) -> FloatArray:
    return np.random.default_rng(0).normal(size=(num_rows, width))


def _sorted(Z: Any) -> Any:
    return Z[np.lexsort(Z.T[::-1])]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_centres_are_M_rows_of_the_inputs_type_within_their_range(dtype: str) -> None:
    X = _rows().astype(dtype)
    Z = kmeans_inducing_points(X, 20, seed=1)
    assert Z.shape == (20, 3)
    assert Z.dtype == dtype
    assert len(np.unique(Z, axis=0)) == 20
    assert np.all((X.min(axis=0) <= Z) & (X.max(axis=0) >= Z))


@pytest.mark.parametrize("num_rows", [400, 20 * ROWS_PER_CENTRE + 500])
def test_centres_are_a_function_of_the_seed(num_rows: int) -> None:
    X = _rows(num_rows)
    one, same, other = (kmeans_inducing_points(X, 20, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.all(one != other)


def test_centres_of_tight_clusters_are_their_means() -> None:
    generator = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
    clusters = [mean + generator.normal(size=(25, 2)) for mean in means]
    Z = kmeans_inducing_points(np.concatenate(clusters), 4, seed=0)
    expected = np.stack([cluster.mean(axis=0) for cluster in clusters])
    # Means of the same numbers, summed in another order.
    np.testing.assert_allclose(_sorted(np.round(Z, 9)), _sorted(np.round(expected, 9)), atol=2e-9)


def test_as_many_centres_as_distinct_rows_are_those_rows_and_more_are_refused() -> None:
    X = np.array([[2.0, 1.0], [0.0, 5.0], [2.0, 1.0], [-3.0, 4.0], [0.0, 5.0]])
    Z = kmeans_inducing_points(X, 3, seed=0)
    np.testing.assert_array_equal(_sorted(Z), [[-3.0, 4.0], [0.0, 5.0], [2.0, 1.0]])
    message = (
        r"inducing_points is 7 but the training data have only 3 distinct rows; "
        r"lower hyperparameters\.model\.inducing_points"
    )
    with pytest.raises(TooFewRows, match=message):
        kmeans_inducing_points(X, 7, seed=0)


def test_repeated_rows_do_not_move_the_centres() -> None:
    X = _rows(100)
    repeated = np.concatenate([X, np.repeat(X[:1], 300, axis=0)])
    np.testing.assert_array_equal(
        kmeans_inducing_points(X, 10, seed=3), kmeans_inducing_points(repeated, 10, seed=3)
    )


def test_rare_rows_that_a_subsample_misses_are_found_and_counted() -> None:
    rare = 1 + np.arange(20.0).reshape(10, 2)
    X = np.concatenate([np.zeros((5000, 2)), rare])
    Z = kmeans_inducing_points(X, 11, seed=0)
    np.testing.assert_array_equal(_sorted(Z), np.concatenate([np.zeros((1, 2)), rare]))
    with pytest.raises(TooFewRows, match="have only 11 distinct rows"):
        kmeans_inducing_points(X, 12, seed=0)
