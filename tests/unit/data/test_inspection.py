from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from natdgp.data.inspection import Inspection
from tests.conftest import FloatArray

X = np.arange(12.0).reshape(6, 2)


def _read(inspection: Inspection, X: FloatArray, Y: FloatArray) -> list[dict[str, FloatArray]]:
    rows = {"inputs": X, "targets": Y, "positions": np.arange(len(X))}
    batches = inspection.of(tf.data.Dataset.from_tensor_slices(rows).batch(3))
    return list(batches.as_numpy_iterator())


def test_finite_batches_pass_unchanged_and_nothing_is_found() -> None:
    inspection = Inspection("the loader")
    first, second = _read(inspection, X, X[:, :1])
    np.testing.assert_array_equal(np.vstack([first["inputs"], second["inputs"]]), X)
    np.testing.assert_array_equal(second["targets"], X[3:, :1])
    np.testing.assert_array_equal(second["positions"], [3, 4, 5])
    assert inspection.found is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_number_that_is_not_finite_is_told_with_its_place(value: float) -> None:
    spoilt = X.copy()
    spoilt[4:, 1] = value
    inspection = Inspection("the loader")
    _, second = _read(inspection, spoilt, X[:, :1])
    np.testing.assert_array_equal(second["inputs"], spoilt[3:])  # it passes: others wait for it
    assert inspection.found == (
        f"the loader gave a batch with inputs[1, 1] {value} (2 of its 6 numbers are not finite); "
        "mend or drop such rows"
    )


def test_targets_are_looked_at_and_the_first_batch_that_is_wrong_is_kept() -> None:
    Y = X[:, :1].copy()
    Y[2, 0] = np.nan
    spoilt = X.copy()
    spoilt[5, 0] = np.inf
    inspection = Inspection("the loader")
    _read(inspection, spoilt, Y)
    assert inspection.found is not None
    assert "a batch with targets[2, 0] nan (1 of its 3 numbers are" in inspection.found


def test_batches_without_rows_and_single_precision_pass() -> None:
    inspection = Inspection("the loader")
    (batch,) = inspection.of(
        tf.data.Dataset.from_tensors({"inputs": np.zeros((0, 2), np.float32)})
    ).as_numpy_iterator()
    assert batch["inputs"].shape == (0, 2)
    assert batch["inputs"].dtype == np.float32
    assert inspection.found is None
