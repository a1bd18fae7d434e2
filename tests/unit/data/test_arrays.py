from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from natdgp.data.arrays import as_table, joined
from natdgp.data.table import DataError

COLUMNS = {"a": [1.0, 2.0, 4.0], "y": [0.5, 0.25, 0.125], "b": [3, 5, 7]}


def _file(folder: Path, write: str) -> Path:
    path = folder / f"rows.{write}"
    getattr(pl.DataFrame(COLUMNS), f"write_{write}")(path)
    return path


@pytest.mark.parametrize(
    "rows",
    [
        lambda folder: COLUMNS,
        lambda folder: pd.DataFrame(COLUMNS),
        lambda folder: pl.DataFrame(COLUMNS),
        lambda folder: _file(folder, "csv"),
        lambda folder: str(_file(folder, "parquet")),
        lambda folder: (pd.DataFrame(COLUMNS)[["a", "b"]], COLUMNS["y"]),
    ],
    ids=["mapping", "pandas", "polars", "CSV", "Parquet", "frame and list"],
)
def test_all_that_people_have_rows_in_is_the_same_table(
    rows: Callable[[Path], Any], tmp_path: Path
) -> None:
    table = as_table(rows(tmp_path), "y")
    assert (table.features, table.targets) == (("a", "b"), ("y",))
    np.testing.assert_array_equal(table.X, [[1, 3], [2, 5], [4, 7]])
    np.testing.assert_array_equal(table.Y, [[0.5], [0.25], [0.125]])


def test_arrays_get_names_and_their_targets_a_second_dimension() -> None:
    table = as_table((np.ones((2, 3)), np.ones((2, 2))))
    assert (table.features, table.targets) == (("x0", "x1", "x2"), ("y0", "y1"))
    assert as_table((np.ones((2, 3)), [1, 2])).targets == ("y",)


def test_features_are_those_that_are_named_in_that_order() -> None:
    table = as_table({**COLUMNS, "text": ["p", "q", "r"]}, ["y"], ["b", "a"])
    assert table.features == ("b", "a")
    np.testing.assert_array_equal(table.X, [[3, 1], [5, 2], [7, 4]])


def test_columns_may_have_numbers_for_names() -> None:
    assert as_table(pd.DataFrame(np.eye(3)), "2").features == ("0", "1")


@pytest.mark.parametrize(
    ("rows", "target", "message"),
    [
        (COLUMNS, None, "name the column to predict"),
        (COLUMNS, "z", "no column 'z'"),
        (COLUMNS, ["y", "y"], "'y' is there or named twice"),
        ({"y": [1.0]}, "y", "no features or no rows"),
        ({**COLUMNS, "a": ["u", "v", "w"]}, "y", "'a' does not hold numbers alone"),
        ({**COLUMNS, "a": [1, 2]}, "y", "different shapes"),
        ({**COLUMNS, "a": np.array([1, 2, 3], "M8[s]")}, "y", "these are times"),
        ({**COLUMNS, "a": [1, None, 3]}, "y", "row 2: nan is missing"),
        (np.eye(3), "y", r"of the type ndarray; give a pair \(X, Y\)"),
        ((np.eye(3), [1, 2]), None, r"X has shape \[3, 3\] and Y \[2, 1\]"),
        ((np.eye(2), [1, 2]), ["y", "z"], "Y has 1 columns, named y, z"),
        ("rows.txt", "y", r"ends neither in .csv nor in .parquet"),
        ("rows.csv", None, "name the column to predict"),
        ("rows.csv", "y", "no such file"),
    ],
)
def test_rows_that_cannot_be_used_are_told(rows: Any, target: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_table(rows, target)


def test_parts_have_equal_columns() -> None:
    one, other = as_table(COLUMNS, "y"), as_table(COLUMNS, "b")
    parts = joined({"train": one, "test": one}).parts
    assert parts is not None
    assert parts.tolist() == ["train"] * 3 + ["test"] * 3
    with pytest.raises(DataError, match="test has the columns a, y, b, and not a, b, y"):
        joined({"train": one, "test": other})
