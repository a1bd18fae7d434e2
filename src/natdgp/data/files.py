"""CSV and Parquet files of the user's own, read strictly: what is not a finite number is told."""

from __future__ import annotations

import contextlib
import csv
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from natdgp.data.data_settings import TableSettings
from natdgp.data.table import PARTS, DataError, FloatArray, Table, unknown_column

# Lower-case spellings in text columns; every column of a CSV file is read as text.
_SPELLINGS = {"": None, "na": None, "null": None, "nan": "NaN", "true": "1", "false": "0"}

Where = Callable[[int], str]
"""From a row's index to how a person finds that row in the file."""


def load_file(settings: TableSettings) -> Table:
    """Read the columns that the settings name; features default to all other columns.

    Integers, floats and booleans are numbers; the CSV spellings of a missing value are nothing,
    NA, null and NaN.

    :raises DataError: with all wrong columns together, each with its first wrong row (of a CSV
        file its line), the value found there and the remedy.
    """
    path = Path(settings.path)
    frame = _read(settings.source, path)
    where: Where = (
        (lambda row: f"line {_line(path, row)}")
        if settings.source == "csv"
        else (lambda row: f"row {row + 1}")
    )
    split = settings.split.column
    named = [*settings.target, *(settings.features or ()), *([split] if split else [])]
    problems = [unknown_column(name, frame.columns) for name in named if name not in frame.columns]
    features = settings.features or tuple(name for name in frame.columns if name not in named)
    if not features:
        problems.append("no column is left to predict from; name fewer in data.target")
    if frame.is_empty():
        problems.append("no rows; the file holds a header alone")
    if problems:
        raise DataError.together(settings.path, problems)

    numbers: dict[str, FloatArray] = {}
    parts = None
    for name in (*features, *settings.target):
        try:
            numbers[name] = _numbers(frame[name], where)
        except DataError as error:
            problems.append(str(error))
    if split:
        try:
            parts = _parts(frame[split], where)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError.together(settings.path, problems)
    return Table(
        X=np.column_stack([numbers[name] for name in features]),
        Y=np.column_stack([numbers[name] for name in settings.target]),
        features=tuple(features),
        targets=settings.target,
        parts=parts,
    )


def _read(source: str, path: Path) -> pl.DataFrame:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            what = "a folder" if path.is_dir() else "neither file nor folder"
            raise DataError(f"{path}: this is {what}; name a file in data.path")
        if source == "parquet":
            return pl.read_parquet(path, glob=False)
        frame = pl.read_csv(path, infer_schema=False, glob=False)
    except FileNotFoundError as error:
        where = "" if path.is_absolute() else f" in {Path.cwd()}; data.path is relative to there"
        raise DataError(f"{path}: no such file{where}") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        why = getattr(error, "strerror", None) or error  # without the path once more
        raise DataError(f"{path}: cannot be read as {source}: {why}") from error
    _refuse_equal_names(path)
    return frame


def _refuse_equal_names(path: Path) -> None:
    """Polars would give the later columns names of its own, and a target might become a feature.

    :raises DataError: for a CSV file whose header has a name more than once.
    """
    with _records(path) as records:
        header: list[str] = next(filter(None, records), [])
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}: the header names more than one column {', '.join(map(repr, twice))}; give "
            "each column a name of its own"
        )


def _line(path: Path, row: int) -> int:
    """The line on which a row of a CSV file ends; quoted values may hold line breaks."""
    with _records(path) as records:
        for _ in range(row + 2):  # the header comes first
            next(records, None)
        return int(records.line_num)


@contextlib.contextmanager
def _records(path: Path) -> Iterator[Any]:
    """A CSV file's records by Python's own reader, which knows lines, with fields of any size."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield csv.reader(file)
    finally:
        csv.field_size_limit(limit)


def _numbers(column: pl.Series, where: Where) -> FloatArray:
    """[N] finite numbers, or a DataError that says why not."""
    kind = column.dtype
    if kind in (pl.String, pl.Categorical, pl.Enum):
        text = column.cast(pl.String).str.strip_chars().str.to_lowercase().replace(_SPELLINGS)
        values = text.cast(pl.Float64, strict=False)
        _refuse(
            column, text.is_not_null() & values.is_null(), where, "is text", "encode as numbers"
        )
    elif kind.is_numeric() or kind in (pl.Boolean, pl.Null):
        values = column.cast(pl.Float64)
    else:
        raise DataError(f"column {column.name!r} holds {kind}; encode as numbers, or leave it out")
    gaps = ~values.is_finite().fill_null(False)
    _refuse(column, gaps, where, "is missing or not finite", "drop or impute those rows")
    numbers: FloatArray = values.to_numpy()
    return numbers


def _parts(column: pl.Series, where: Where) -> npt.NDArray[np.str_]:
    names = column.cast(pl.String)
    wrong = ~names.is_in(PARTS).fill_null(False)
    _refuse(column, wrong, where, "names no part", f"write one of {', '.join(PARTS)}")
    return np.array(names.to_list(), dtype=np.str_)


def _refuse(column: pl.Series, wrong: pl.Series, where: Where, what: str, remedy: str) -> None:
    if wrong.any():
        rows = wrong.arg_true()
        raise DataError(
            f"column {column.name!r}, {where(rows[0])}: {column[rows[0]]!r} {what} "
            f"(rows like it: {len(rows)}); {remedy}"
        )
