"""Rows that are in memory already: arrays, mappings of columns, pandas' and polars' frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from natdgp.data.table import DataError, FloatArray, Table, unknown_column


def table_of_columns(data: Any, target: str | Sequence[str]) -> Table:
    """A frame, or a mapping of columns, as numbers.

    :param data: columns by name, `data[name]`; pandas' and polars' frames are such.
    :param target: the columns to predict; all others are features.
    :raises DataError: with all wrong columns together.
    """
    names = [str(name) for name in (data.columns if hasattr(data, "columns") else data)]
    targets = (target,) if isinstance(target, str) else tuple(target)
    if problems := [unknown_column(name, names) for name in targets if name not in names]:
        raise DataError.together("data", problems)
    features = tuple(name for name in names if name not in targets)
    columns: dict[str, FloatArray] = {}
    for name in names:
        try:
            columns[name] = _numbers(data[name], f"column {name!r}")
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError.together("data", problems)
    return _table(
        np.column_stack([columns[name] for name in features]) if features else np.empty((0, 0)),
        np.column_stack([columns[name] for name in targets]),
        features,
        targets,
    )


def table_of_arrays(
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    features: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
) -> Table:
    """Arrays as a table.

    :param X: features [N, D].
    :param Y: targets [N] or [N, Q].
    :param features: names of X's columns; by default x0, x1 and so on.
    :param targets: names of Y's columns; by default y, or y0, y1 and so on.
    :raises DataError: if they are of other shapes, or hold what is not a finite number.
    """
    X, Y = _numbers(X, "X"), _numbers(Y, "Y")
    Y = Y[:, None] if Y.ndim == 1 else Y
    if X.ndim != 2 or Y.ndim != 2 or len(X) != len(Y):
        raise DataError(
            f"X has shape {list(X.shape)} and Y {list(Y.shape)}; give [N, D] and [N] or [N, Q]"
        )
    default = ["y"] if Y.shape[1] == 1 else [f"y{number}" for number in range(Y.shape[1])]
    return _table(
        X,
        Y,
        tuple(features or (f"x{number}" for number in range(X.shape[1]))),
        tuple(targets or default),
    )


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
