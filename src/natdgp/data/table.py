"""What every source of data yields, and the error for data that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

PARTS = ("train", "validation", "test")
"""What a row may be for, as written in a split column."""


class DataError(ValueError):
    """Data that cannot be used. The message names file, column, row, value and remedy."""

    @classmethod
    def together(cls, where: str, problems: Sequence[str]) -> DataError:
        """All problems of one source in one message, one a line."""
        return cls("\n  - ".join([f"{where}:", *problems]))


@dataclass(frozen=True)
class Table:
    """Numbers to learn from, in original units; every value is finite."""

    X: FloatArray
    """Features [N, D]."""
    Y: FloatArray
    """Targets [N, Q]."""
    features: tuple[str, ...]
    """Names of X's columns."""
    targets: tuple[str, ...]
    """Names of Y's columns."""
    parts: npt.NDArray[np.str_] | None
    """[N] of `train`, `validation` or `test` where the source divides its rows, else None."""


def unknown_column(name: str, known: Sequence[str], shown: int = 20) -> str:
    """What to tell someone who asked for a column that is not there."""
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    more = f", ... ({len(known)} in all)" if len(known) > shown else ""
    return f"no column {name!r}; {hint}The columns are: {', '.join(known[:shown])}{more}"
