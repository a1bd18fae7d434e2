import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from natdgp.data.data_settings import FlightsSettings, SplitSettings, TableSettings
from natdgp.data.prepare import prepare
from natdgp.data.table import DataError
from natdgp.likelihoods.gaussian import GaussianSettings
from natdgp.likelihoods.registry import build_likelihood
from natdgp.results.baselines import baseline_figures

GAUSSIAN = build_likelihood(GaussianSettings())


def settings(path: Path) -> TableSettings:
    split = SplitSettings(column="part")
    return TableSettings(source="csv", path=str(path), target=("y",), split=split)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_are_standardised_in_the_models_dtype(table_csv: Path, dtype: str) -> None:
    prepared = prepare(settings(table_csv), dtype)
    assert [len(rows) for rows in (prepared.train, prepared.validation, prepared.test)] == [
        12,
        4,
        4,
    ]
    assert (prepared.features, prepared.targets) == (("a", "b"), ("y",))
    assert prepared.train.X.dtype == prepared.test.Y.dtype == np.dtype(dtype)
    # 1e-6: one float32 rounding of numbers of size 1
    np.testing.assert_allclose(prepared.train.X.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(prepared.train.Y.std(axis=0), 1, rtol=1e-6)
    # a = 0, ..., 11 train: mean 5.5, variance 143/12; the first validation row has a = 12
    np.testing.assert_allclose(prepared.validation.X[0, 0], 6.5 / np.sqrt(143 / 12), rtol=1e-6)


def test_statistics_are_those_of_training_rows_alone(table_csv: Path) -> None:
    before = prepare(settings(table_csv), "float64")
    table_csv.write_text(table_csv.read_text().replace("13,1.5,19,val", "1e6,-1e6,1e6,val"))
    table_csv.write_text(table_csv.read_text().replace("18,0.5,29,test", "1e6,-1e6,1e6,test"))
    after = prepare(settings(table_csv), "float64")
    assert before.scaling.to_dict() == after.scaling.to_dict()
    assert after.validation.X.max() > 1e4 > before.validation.X.max()
    assert after.test.X.max() > 1e4 > before.test.X.max()
    table_csv.write_text(table_csv.read_text().replace("3,0.5,-1,train", "1e6,0.5,-1,train"))
    assert prepare(settings(table_csv), "float64").scaling.to_dict() != after.scaling.to_dict()


DOUBLE = ", or set hyperparameters.model.dtype to float64"


def _put(path: Path, column: str, rows: list[int], value: float) -> None:
    table = pl.read_csv(path).with_columns(pl.col(column).cast(pl.Float64))
    table[rows, column] = value
    table.write_csv(path)


@pytest.mark.parametrize(("part", "row"), [("validation", 13), ("test", 19)])
@pytest.mark.parametrize(
    ("column", "value", "dtype", "remedy"),
    [
        ("a", 1e80, "float64", ""),
        ("y", -1e300, "float64", ""),
        ("a", 1e14, "float32", DOUBLE),
        ("y", 1e60, "float32", DOUBLE),
        ("y", 1e300, "float32", ""),
    ],
)
def test_a_value_too_far_out_for_finite_figures_is_refused(
    table_csv: Path, part: str, row: int, column: str, value: float, dtype: str, remedy: str
) -> None:
    _put(table_csv, column, [row], value)
    words = f"'{column}', row {row + 1} ({part}): {value:g} lies so far from the training rows' m"
    with pytest.raises(DataError, match=re.escape(words)) as raised:
        prepare(settings(table_csv), dtype)
    assert str(raised.value).startswith(f"{table_csv}:\n  - ")
    assert str(raised.value).endswith(
        f"in {dtype} (rows like it: 1); correct or drop those rows{remedy}"
    )


def test_so_is_a_training_target_whose_own_unit_is_too_small(table_csv: Path) -> None:
    _put(table_csv, "y", [3, 4], 1e100)
    with pytest.raises(DataError, match=re.escape("'y', row 4 (train): 1e+100 lies so far")):
        prepare(settings(table_csv), "float64")


@pytest.mark.parametrize(("dtype", "value"), [("float64", 1e70), ("float32", 1e12)])
def test_within_the_bounds_rows_and_the_baselines_figures_are_finite(
    table_csv: Path, dtype: str, value: float
) -> None:
    for column in "ay":
        _put(table_csv, column, [13, 19], value)
    prepared = prepare(settings(table_csv), dtype)
    for rows in (prepared.validation, prepared.test):
        assert np.abs(rows.X).max() < np.inf
        figures = baseline_figures(prepared.train, rows, prepared.scaling, GAUSSIAN)
        for one in figures.values():
            assert all(map(math.isfinite, one.values())), one


def test_a_share_of_the_flights() -> None:
    prepared = prepare(FlightsSettings(source="flights", rows=1000), "float32")
    assert [len(p) for p in (prepared.train, prepared.validation, prepared.test)] == [800, 100, 100]
    # drawn from the whole year
    assert len(np.unique(prepared.train.X[:, 0])) == 12


def test_the_fingerprint_is_that_of_the_rows_and_of_what_they_are_for(table_csv: Path) -> None:
    text = table_csv.read_text()
    seen = {prepare(settings(table_csv), dtype).fingerprint for dtype in ("float64", "float32")}
    assert len(seen) == 1
    for old, new in (
        ("3,0.5,-1,train", "3.0000000001,0.5,-1,train"),
        ("18,0.5,29,test", "18,0.5,29,validation"),
        ("18,0.5,29,test", "18,0.5,28,test"),
    ):
        assert old in text
        table_csv.write_text(text.replace(old, new))
        seen.add(prepare(settings(table_csv), "float64").fingerprint)
    assert len(seen) == 4
