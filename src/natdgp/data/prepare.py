"""From settings to standardised rows, ready for the pipeline."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from natdgp.data.scaling import Scaling
from natdgp.data.sources import load_table
from natdgp.data.split import Division, divide
from natdgp.data.table import Table
from natdgp.settings.schema import FlightsSettings, TableSettings

Numbers = npt.NDArray[np.floating[Any]]
"""An array in one of the models' float types."""


@dataclass(frozen=True)
class Rows:
    """Standardised rows in the model's dtype."""

    X: Numbers
    """Features [N, D]."""
    Y: Numbers
    """Targets [N, Q]."""

    def __len__(self) -> int:
        return len(self.X)


@dataclass(frozen=True)
class Prepared:
    """A source's rows, divided and standardised by the training rows' statistics."""

    train: Rows
    validation: Rows
    test: Rows
    scaling: Scaling
    features: tuple[str, ...]
    targets: tuple[str, ...]
    fingerprint: str
    """Of the rows in use as the source has them, and of what each is for: other data, other text,
    whatever the machine that standardises them."""


def prepare(settings: FlightsSettings | TableSettings, dtype: str) -> Prepared:
    """Load, divide and standardise.

    :param dtype: `float64` or `float32`; statistics are float64 in either case.
    :raises DataError: if the source cannot be read, divided or standardised.
    """
    table = load_table(settings)
    division = divide(len(table.X), settings.split, keep=settings.rows, parts=table.parts)
    scaling = Scaling.fit(
        table.X[division.train], table.Y[division.train], table.features, table.targets
    )
    train, validation, test = (
        Rows(
            scaling.scale_x(table.X[indices]).astype(dtype),
            scaling.scale_y(table.Y[indices]).astype(dtype),
        )
        for indices in (division.train, division.validation, division.test)
    )
    return Prepared(
        train,
        validation,
        test,
        scaling,
        table.features,
        table.targets,
        _fingerprint(table, division),
    )


def _fingerprint(table: Table, division: Division) -> str:
    digest = hashlib.sha256()
    for indices in (division.train, division.validation, division.test):
        for values in (table.X, table.Y):
            digest.update(f"{len(indices)} ".encode() + values[indices].tobytes())
    return digest.hexdigest()
