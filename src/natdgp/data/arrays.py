"""Rows that are in memory already: arrays, mappings of columns, pandas' and polars' frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from natdgp.data.data_settings import TableSettings
from natdgp.data.files import load_file
from natdgp.data.table import DataError, FloatArray, Table, unknown_column


def as_table(
    data: Any,
    target: str | Sequence[str] | None = None,
    features: Sequence[str] | None = None,
) -> Table:
    """What people have their rows in, as a table.

    :param data: a pair (X, Y) of arrays, X [N, D] and Y [N] or [N, Q]; a pandas or polars frame or
        a mapping of columns; or the path of a CSV or Parquet file.
    :param target: the columns to predict; of arrays, what to call Y's.
    :param features: the columns to predict from, by default all others; of arrays, what to call
        X's, by default as a frame does.
    :raises DataError: if there are no such columns, or if they hold what is not a finite number.
    """
    if isinstance(data, tuple) and len(data) == 2:
        X, Y = data
        return table_of_arrays(X, Y, features or getattr(X, "columns", None), named(target) or None)
    if isinstance(data, (str, Path)):
        return load_file(TableSettings(**file_facts(data, target, features)))
    return table_of_columns(data, named(target), features)


def file_facts(
    path: str | Path,
    target: str | Sequence[str] | None = None,
    features: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What :class:`natdgp.data.data_settings.TableSettings` is made of, but for the split.

    :raises DataError: if the file's name does not say what it is, or if no target is named.
    """
    source = Path(path).suffix.lower().lstrip(".")
    if source not in ("csv", "parquet"):
        raise DataError(f"{path}: the name ends neither in .csv nor in .parquet; rename the file")
    return {
        "source": source,
        "path": str(path),
        "target": named(target) or _no_target(),
        "features": None if features is None else tuple(features),
    }


def named(target: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names of one column or of several, or of none."""
    return (target,) if isinstance(target, str) else tuple(target or ())


def _no_target() -> NoReturn:
    raise DataError("no target; name the column to predict, or several, as target")


def table_of_columns(
    data: Any, target: str | Sequence[str], features: Sequence[str] | None = None
) -> Table:
    """A frame, or a mapping of columns, as numbers.

    :param data: columns by name, `data[name]`; pandas' and polars' frames are such.
    :param target: the columns to predict.
    :param features: the columns to predict from; by default all others.
    :raises DataError: with all wrong columns together.
    """
    if not (isinstance(data, Mapping) or hasattr(data, "columns")):
        raise DataError(
            f"rows of the type {type(data).__name__}; give a pair (X, Y) of arrays, a frame, a "
            "mapping of columns, or the path of a CSV or Parquet file"
        )
    own_names = [*(data.columns if hasattr(data, "columns") else data)]
    names = [*map(str, own_names)]
    targets = named(target) or _no_target()
    if features is None:
        features = [name for name in names if name not in targets]
    wanted = [*features, *targets]
    problems = [unknown_column(name, names) for name in wanted if name not in names]
    problems += [
        f"the column {name!r} is there or named twice; give each a name of its own, and one role"
        for name in dict.fromkeys(wanted)
        if names.count(name) > 1 or wanted.count(name) > 1
    ]
    if problems:
        raise DataError.together("data", problems)
    columns: dict[str, FloatArray] = {}
    for name in wanted:
        try:
            columns[name] = _numbers(data[own_names[names.index(name)]], f"column {name!r}")
        except DataError as error:
            problems.append(str(error))
    shapes = {name: column.shape for name, column in columns.items()}
    if not problems and (len({*shapes.values()}) > 1 or any(len(s) != 1 for s in shapes.values())):
        problems.append(f"columns are of different shapes: {shapes}; give each as many numbers")
    if problems:
        raise DataError.together("data", problems)
    return _table(
        np.column_stack([columns[name] for name in features]) if features else np.empty((0, 0)),
        np.column_stack([columns[name] for name in targets]),
        tuple(features),
        targets,
    )


def table_of_arrays(
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    features: Iterable[Any] | None = None,
    targets: Sequence[str] | None = None,
) -> Table:
    """Arrays as a table.

    :param X: features [N, D].
    :param Y: targets [N] or [N, Q].
    :param features: names of X's columns; by default x0, x1 and so on.
    :param targets: names of Y's columns; by default y, or y0, y1 and so on.
    :raises DataError: if they are of other shapes, if there are more or fewer names than columns,
        or if they hold what is not a finite number.
    """
    X, Y = _numbers(X, "X"), _numbers(Y, "Y")
    Y = Y[:, None] if Y.ndim == 1 else Y
    if X.ndim != 2 or Y.ndim != 2 or len(X) != len(Y):
        raise DataError(
            f"X has shape {list(X.shape)} and Y {list(Y.shape)}; give [N, D] and [N] or [N, Q]"
        )
    default = ("y",) if Y.shape[1] == 1 else tuple(f"y{number}" for number in range(Y.shape[1]))
    numbered = (f"x{number}" for number in range(X.shape[1]))
    table = _table(
        X,
        Y,
        tuple(map(str, numbered if features is None else features)),
        default if targets is None else tuple(targets),
    )
    for what, values, names in (("X", X, table.features), ("Y", Y, table.targets)):
        if not len({*names}) == len(names) == values.shape[1]:
            raise DataError(
                f"{what} has {values.shape[1]} columns, named {', '.join(names)}; give each a name "
                "of its own"
            )
    return table


def joined(parts: Mapping[str, Table]) -> Table:
    """Tables of equal columns as one, which says for each row what it is for.

    :param parts: by `train`, `validation` and `test`.
    :raises DataError: if their columns differ.
    """
    first = next(iter(parts.values()))
    for name, part in parts.items():
        if (part.features, part.targets) != (first.features, first.targets):
            raise DataError(
                f"{name} has the columns {', '.join((*part.features, *part.targets))}, and not "
                f"{', '.join((*first.features, *first.targets))}; give all parts the same"
            )
    return Table(
        np.concatenate([part.X for part in parts.values()]),
        np.concatenate([part.Y for part in parts.values()]),
        first.features,
        first.targets,
        np.repeat([*parts], [len(part.X) for part in parts.values()]),
    )


def _table(
    X: FloatArray, Y: FloatArray, features: tuple[str, ...], targets: tuple[str, ...]
) -> Table:
    if not features or not len(X):
        raise DataError("there are no features or no rows; give at least one of each")
    return Table(X, Y, features, targets, None)


def _numbers(values: Any, what: str) -> FloatArray:
    try:
        if np.asarray(values).dtype.kind in "mM":
            raise TypeError("these are times")  # which NumPy takes for their nanoseconds
        numbers: FloatArray = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} does not hold numbers alone: {error}; encode as numbers") from None
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        raise DataError(
            f"{what}, row {wrong[0][0] + 1}: {numbers[tuple(wrong[0])]} is missing or not finite "
            f"(values like it: {len(wrong)}); drop or impute those rows"
        )
    return numbers
