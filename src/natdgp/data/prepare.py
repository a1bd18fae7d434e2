"""From settings to standardised rows, ready for the pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from natdgp.data.data_settings import ArraysSettings, DataSettings, TableSettings
from natdgp.data.scaling import Scaling
from natdgp.data.sources import load_table
from natdgp.data.split import Division, divide
from natdgp.data.table import DataError, Table

Numbers = npt.NDArray[np.floating[Any]]
"""An array in one of the models' float types."""

_FARTHEST = {"float64": 1e70, "float32": 1e12}
"""How far from the training rows' mean a value may lie, in their standard deviations.

Figures add up squares of it over rows, divided by variances down to 1e-6, which has to stay below
float32's 3e38. In float64, linear regression squares the product of a feature and the target's
unit: each has to stay below the fourth root of 2e308, with room for the sum."""


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


def prepare(
    settings: DataSettings,
    dtype: str,
    *,
    scales_targets: bool = True,
    table: Table | None = None,
) -> Prepared:
    """Load, divide and standardise.

    :param dtype: `float64` or `float32`; statistics are float64 in either case.
    :param scales_targets: whether targets are standardised, or stay as they are.
    :param table: the rows, where they are in memory already.
    :raises DataError: if the source cannot be read, divided or standardised, or if values lie so
        far out that figures about them would not be finite.
    """
    table = load_table(settings) if table is None else table
    division = divide(len(table.X), settings.split, keep=settings.rows, parts=table.parts)
    scaling = Scaling.fit(
        table.X[division.train],
        table.Y[division.train],
        table.features,
        table.targets,
        scales_targets=scales_targets,
        keeps_constants=isinstance(settings, ArraysSettings) and settings.constants == "keep",
    )
    if problems := list(_too_far(table, division, scaling, dtype)):
        source = settings.path if isinstance(settings, TableSettings) else settings.source
        raise DataError.together(source, problems)
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


def _too_far(table: Table, division: Division, scaling: Scaling, dtype: str) -> Iterator[str]:
    """What lies too far out, in words for each column, with the farthest value."""
    used = np.concatenate(list(vars(division).values()))
    parts = np.repeat([*vars(division)], [*map(len, vars(division).values())])
    for role, names, values, means, stds in (
        ("feature", table.features, table.X, scaling.x_mean, scaling.x_std),
        ("target", table.targets, table.Y, scaling.y_mean, scaling.y_std),
    ):
        for name, column, mean, std in zip(names, values[used].T, means, stds, strict=True):
            # Figures about a target are told in its own unit as well, always as float64.
            unit = 1.0 if role == "target" else np.inf
            with np.errstate(over="ignore"):
                away = np.abs(column - mean)
                wide = away / min(std, unit) > _FARTHEST["float64"]
                far = wide | (away / std > _FARTHEST[dtype])
            if far.any():
                worst = away.argmax()
                wider = "" if wide.any() else ", or set hyperparameters.model.dtype to float64"
                yield (
                    f"{role} {name!r}, row {used[worst] + 1} ({parts[worst]}): {column[worst]:g} "
                    f"lies so far from the training rows' mean, {mean:g}, that figures would not "
                    f"be finite in {dtype} (rows like it: {far.sum()}); correct or drop those "
                    f"rows{wider}"
                )


def _fingerprint(table: Table, division: Division) -> str:
    digest = hashlib.sha256()
    for indices in (division.train, division.validation, division.test):
        for values in (table.X, table.Y):
            digest.update(f"{len(indices)} ".encode() + values[indices].tobytes())
    return digest.hexdigest()
