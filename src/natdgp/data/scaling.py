"""Standardisation by the training rows' statistics, and the way back to original units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from natdgp.data.table import DataError, FloatArray


@dataclass(frozen=True)
class Scaling:
    """Means and standard deviations of the training rows, in original units."""

    x_mean: FloatArray
    """[D]"""
    x_std: FloatArray
    """[D]"""
    y_mean: FloatArray
    """[Q]"""
    y_std: FloatArray
    """[Q]"""

    @classmethod
    def fit(
        cls,
        X: FloatArray,
        Y: FloatArray,
        features: Sequence[str],
        targets: Sequence[str],
        *,
        scales_targets: bool = True,
    ) -> Scaling:
        """The statistics of training rows X [N, D] and Y [N, Q], whose columns are named.

        :param scales_targets: whether targets are standardised, or stay as they are.
        :raises DataError: with all columns together that have no spread to divide by.
        """
        if len(X) == 1:
            raise DataError("there is 1 training row, over which nothing varies; give more rows")
        problems = [
            *_without_spread(X, features, "feature", "leave it out of data.features"),
            *_without_spread(Y, targets, "target", "there is nothing to predict in it"),
        ]
        if problems:
            raise DataError.together(f"the {len(X)} training rows", problems)
        zeros = np.zeros(Y.shape[1])
        y = (Y.mean(axis=0), Y.std(axis=0)) if scales_targets else (zeros, zeros + 1)
        return cls(X.mean(axis=0), X.std(axis=0), *y)

    def scale_x(self, X: FloatArray) -> FloatArray:
        """Features [N, D] in original units -> standardised."""
        return (X - self.x_mean) / self.x_std

    def scale_y(self, Y: FloatArray) -> FloatArray:
        """Targets [N, Q] in original units -> standardised."""
        return (Y - self.y_mean) / self.y_std

    def unscale_y_mean(self, mean: FloatArray) -> FloatArray:
        """Means [..., Q] of standardised targets -> original units."""
        return mean * self.y_std + self.y_mean

    def unscale_y_variance(self, variance: FloatArray) -> FloatArray:
        """Variances [..., Q] of standardised targets -> original units, squared."""
        return variance * self.y_std**2

    def to_dict(self) -> dict[str, list[float]]:
        """For JSON; every float comes back as it was."""
        return {name: values.tolist() for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[float]]) -> Scaling:
        """The inverse of `to_dict`."""
        return cls(**{name: np.array(numbers, np.float64) for name, numbers in values.items()})


def _without_spread(A: FloatArray, names: Sequence[str], role: str, remedy: str) -> list[str]:
    with np.errstate(over="ignore", invalid="ignore"):
        std = A.std(axis=0)
    # A constant such as 0.1 may have a standard deviation of 1e-17: compare the extremes as well.
    lowest, highest = A.min(axis=0), A.max(axis=0)
    good = (lowest < highest) & (std > 0) & np.isfinite(std)
    return [
        f"{role} {name!r} has no usable spread (from {low:g} to {high:g}); {remedy}"
        for name, fine, low, high in zip(names, good, lowest, highest, strict=True)
        if not fine
    ]
