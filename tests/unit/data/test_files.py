from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from natdgp.data.data_settings import SplitSettings, TableSettings
from natdgp.data.sources import load_table
from natdgp.data.table import DataError, unknown_column


def settings(path: Path, **fields: Any) -> TableSettings:
    source = "parquet" if path.suffix == ".parquet" else "csv"
    return TableSettings.model_validate(
        {"source": source, "path": str(path), "target": ["y"], **fields}
    )


def csv(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


def error(path: Path, **fields: Any) -> str:
    with pytest.raises(DataError) as raised:
        load_table(settings(path, **fields))
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_features_are_by_default_all_other_columns(table_csv: Path) -> None:
    table = load_table(settings(table_csv, split=SplitSettings(column="part")))
    assert table.features == ("a", "b")
    assert table.targets == ("y",)
    assert table.X[4].tolist() == [4, 1.5]
    assert table.Y[4].tolist() == [1]
    assert table.parts is not None
    assert table.parts[[0, 12, 19]].tolist() == ["train", "validation", "test"]


def test_chosen_columns_come_in_the_order_asked_for(table_csv: Path) -> None:
    table = load_table(settings(table_csv, target=["y", "a"], features=["b"]))
    assert table.X[4].tolist() == [1.5]
    assert table.Y[4].tolist() == [1, 4]
    assert table.parts is None


def test_integers_booleans_and_floats_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    frame = pl.DataFrame({"i": [1, 2], "b": [True, False], "f": [0.1, 1e300], "y": [3, 4]})
    frame.write_parquet(path)
    expected = [[1, 1, 0.1], [2, 0, 1e300]]
    assert load_table(settings(path)).X.tolist() == expected
    frame.write_csv(tmp_path / "table.csv")
    assert load_table(settings(tmp_path / "table.csv")).X.tolist() == expected


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("absent.csv", None, "no such file"),
        (".", None, "this is a folder; name a file in data.path"),
        ("d" * 5000, None, "cannot be read as csv: File name too long"),
        ("table.parquet", "a,y\n1,2\n", "cannot be read as parquet"),
        ("table.csv", "", "cannot be read as csv"),
        ("table.csv", "a,y\n1,2,3\n", "cannot be read as csv"),
        ("table.csv", "a,y\n", "no rows"),
        ("table.csv", "y\n1\n2\n", "no column is left to predict from"),
    ],
    ids=["absent", "folder", "long name", "CSV", "empty", "ragged", "header alone", "target alone"],
)
def test_what_is_no_table_is_told(tmp_path: Path, name: str, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert told in error(tmp_path / name)


@pytest.mark.parametrize("header", ["a,y,y", '\ufeffa,"y",y', "\r\na,y,y\r"])
def test_equal_names_of_columns_are_told(tmp_path: Path, header: str) -> None:
    text = error(csv(tmp_path, f"{header}\n1,2,3\n3,4,5\n"))
    assert "the header names more than one column 'y'; give each column a name of its own" in text


def test_a_wrong_row_is_found_behind_a_large_field(tmp_path: Path) -> None:
    rows = f'{"0" * 200_000}1,2\n"1\n",3\nbad,4\n'
    assert "column 'a', line 5: 'bad' is text" in error(csv(tmp_path, f"a,y\n{rows}"))


def test_absent_columns_are_told_together_with_what_was_meant(table_csv: Path) -> None:
    message = error(
        table_csv, target=["yy"], features=["a", "speed"], split=SplitSettings(column="parts")
    )
    assert "no column 'yy'; did you mean 'y'? The columns are: a, b, y, part" in message
    assert "no column 'speed'; The columns are" in message
    assert "no column 'parts'; did you mean 'part'?" in message


def test_a_long_list_of_columns_is_cut_short() -> None:
    known = [f"c{i}" for i in range(300)]
    assert unknown_column("zzz", known).endswith("c19, ... (300 in all)")


def test_text_is_told_with_column_line_value_and_remedy(tmp_path: Path) -> None:
    # A quoted line break and an empty line: the third record's line is the sixth.
    path = csv(tmp_path, 'a,note,y\n1,"two\nlines",1\n\nNA,x,2\nred,x,3\nblue,x,4\n')
    message = error(path, features=["a"])
    assert "column 'a', line 6: 'red' is text (rows like it: 2); encode as numbers" in message


@pytest.mark.parametrize(
    ("cell", "shown"), [("", "None"), ("NA", "'NA'"), ("nan", "'nan'"), ("inf", "'inf'")]
)
def test_gaps_are_told_together_with_column_line_and_remedy(
    tmp_path: Path, cell: str, shown: str
) -> None:
    message = error(csv(tmp_path, f"a,b,y\n1,2,3\n4,5,{cell}\n{cell},8,9\n"))
    remedy = "(rows like it: 1); drop or impute those rows"
    assert f"column 'a', line 4: {shown} is missing or not finite {remedy}" in message
    assert f"column 'y', line 3: {shown} is missing or not finite {remedy}" in message


def test_rows_of_a_parquet_file_are_counted_from_one(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pl.DataFrame({"a": [1.0, None], "y": [float("nan"), 2.0]}).write_parquet(path)
    message = error(path)
    assert "column 'a', row 2: None is missing" in message
    assert "column 'y', row 1: nan is missing" in message


def test_dates_and_categories_are_told(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pl.DataFrame(
        {"day": [date(2013, 1, 1)], "kind": pl.Series(["jet"], dtype=pl.Categorical), "y": [1]}
    ).write_parquet(path)
    message = error(path)
    assert "column 'day' holds Date; encode as numbers" in message
    assert "column 'kind', row 1: 'jet' is text" in message


def test_a_part_that_does_not_exist_is_told(table_csv: Path) -> None:
    table_csv.write_text(table_csv.read_text().replace("validation", "dev"))
    message = error(table_csv, split=SplitSettings(column="part"))
    assert "column 'part', line 14: 'dev' names no part (rows like it: 4)" in message
    assert "write one of train, validation, test" in message


def test_numbers_are_read_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=100) * 1e-7
    path = csv(tmp_path, "\n".join(["a,y", *(f"{v!r},{i}" for i, v in enumerate(values.tolist()))]))
    np.testing.assert_array_equal(load_table(settings(path)).X[:, 0], values)
