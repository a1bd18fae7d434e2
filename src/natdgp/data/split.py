"""Which rows train, which select models and which are kept for the final report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from natdgp.data.data_settings import SplitSettings
from natdgp.data.table import PARTS, DataError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Division:
    """Indices of rows: disjoint, ascending, together all rows that are used."""

    train: Indices
    validation: Indices
    test: Indices


def divide(
    num_rows: int,
    settings: SplitSettings,
    *,
    keep: int | None = None,
    parts: npt.NDArray[np.str_] | None = None,
) -> Division:
    """Divide `num_rows` rows, or `keep` of them drawn by the seed; the same for the same arguments.

    :param parts: [num_rows] names of the part each row belongs to, in place of shares. A share
        above 0 gets at least one row.
    :raises DataError: if `keep` exceeds the rows there are, or if no training or no validation
        rows come out.
    """
    if keep is not None and keep > num_rows:
        raise DataError(f"data.rows is {keep} but the source has {num_rows}; lower it or drop it")
    drawn = np.random.default_rng(settings.seed).permutation(num_rows)[:keep]
    if parts is not None:
        train, validation, test = (drawn[parts[drawn] == name] for name in PARTS)
    else:
        held_out = _count(len(drawn), settings.validation)
        both = held_out + _count(len(drawn), settings.test)
        validation, test, train = drawn[:held_out], drawn[held_out:both], drawn[both:]
    for name, chosen, remedy in (
        ("train", train, "give more rows, or lower data.split.validation and data.split.test"),
        ("validation", validation, "a trial selects by them, so raise data.split.validation"),
    ):
        if not len(chosen):
            if parts is not None:
                remedy = f"write {name!r} in more rows of column {settings.column!r}"
            raise DataError(f"no {name} rows among the {len(drawn)} in use; {remedy}")
    return Division(np.sort(train), np.sort(validation), np.sort(test))


def _count(num_rows: int, share: float) -> int:
    return max(1, round(num_rows * share)) if share else 0
