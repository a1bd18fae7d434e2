"""Standardisation by the training rows' statistics, and the way back to original units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

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
        keeps_constants: bool = False,
    ) -> Scaling:
        """The statistics of training rows X [N, D] and Y [N, Q], whose columns are named.

        :param scales_targets: whether targets are standardised, or stay as they are.
        :param keeps_constants: whether columns of one value are centred and divided by 1, and
            not refused.
        :raises DataError: with all columns together that have no spread to divide by.
        """
        if len(X) == 1:
            raise DataError("there is 1 training row, over which nothing varies; give more rows")
        kept = [
            keeps_constants & (A.min(axis=0) == A.max(axis=0)) & np.isfinite(A).all(axis=0)
            for A in (X, Y)
        ]
        problems = [
            *_without_spread(X, ~kept[0], features, "feature", "leave it out of data.features"),
            *_without_spread(Y, ~kept[1], targets, "target", "there is nothing to predict in it"),
        ]
        if problems:
            raise DataError.together(f"the {len(X)} training rows", problems)
        zeros = np.zeros(Y.shape[1])
        y = _moments(Y, kept[1]) if scales_targets else (zeros, zeros + 1)
        return cls(*_moments(X, kept[0]), *y)

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


def _moments(A: FloatArray, constant: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    # The mean of equal numbers is not always that number.
    return np.where(constant, A[0], A.mean(axis=0)), np.where(constant, 1.0, A.std(axis=0))


def _without_spread(
    A: FloatArray, looked_at: npt.NDArray[np.bool_], names: Sequence[str], role: str, remedy: str
) -> list[str]:
    with np.errstate(over="ignore", invalid="ignore"):
        std = A.std(axis=0)
    # A constant such as 0.1 may have a standard deviation of 1e-17: compare the extremes as well.
    lowest, highest = A.min(axis=0), A.max(axis=0)
    wrong = looked_at & ~((lowest < highest) & (std > 0) & np.isfinite(std))
    return [
        f"{role} {name!r} has no usable spread (from {low:g} to {high:g}); {remedy}"
        for name, bad, low, high in zip(names, wrong, lowest, highest, strict=True)
        if bad
    ]
