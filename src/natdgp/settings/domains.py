"""What one hyperparameter may be: Determined's kinds, each frozen and validated.

`draw` gives one value, `ends` the extreme ones, `grid` those of a grid search, of which there are
`grid_size`, by the rules of Determined 0.38.1; a range includes both bounds.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from random import Random
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from natdgp.fields import Frozen, Number, PositiveInt
from natdgp.settings.section import Section

WholeNumber = Annotated[int, Field(strict=True)]


class Const(Frozen):
    """One value."""

    type: Literal["const"] = "const"
    val: Any

    def draw(self, rng: Random) -> Any:
        return copy.deepcopy(self.val)

    @property
    def ends(self) -> Sequence[Any]:
        return (self.val,)

    @property
    def grid(self) -> Sequence[Any]:
        return (self.val,)

    @property
    def grid_size(self) -> int:
        return 1

    def contains(self, value: object) -> bool:
        return bool(value == self.val)


class Categorical(Frozen):
    """One of several values of any kind, each as likely."""

    type: Literal["categorical"]
    vals: tuple[Any, ...] = Field(min_length=1)

    def draw(self, rng: Random) -> Any:
        return copy.deepcopy(rng.choice(self.vals))

    @property
    def ends(self) -> Sequence[Any]:
        return self.vals

    @property
    def grid(self) -> Sequence[Any]:
        return self.vals

    @property
    def grid_size(self) -> int:
        return len(self.vals)

    def contains(self, value: object) -> bool:
        return value in self.vals


class Int(Section):
    """A whole number, each as likely."""

    type: Literal["int"]
    minval: WholeNumber
    maxval: WholeNumber
    count: PositiveInt | None = None
    """How many numbers a grid has; all, if there are fewer."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Int:
        _in_order(self.minval, self.maxval)
        return self

    def draw(self, rng: Random) -> int:
        return rng.randint(self.minval, self.maxval)

    @property
    def ends(self) -> Sequence[int]:
        return (self.minval, self.maxval)

    @property
    def grid(self) -> Sequence[int]:
        return [_rounded(value) for value in _evenly(self.minval, self.maxval, self.grid_size)]

    @property
    def grid_size(self) -> int:
        return min(_given(self.count), self.maxval - self.minval + 1)

    def contains(self, value: object) -> bool:
        return isinstance(value, int) and self.minval <= value <= self.maxval


class Double(Section):
    """A number, uniformly."""

    type: Literal["double"]
    minval: Number
    maxval: Number
    count: PositiveInt | None = None
    """How many numbers a grid has."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Double:
        _in_order(self.minval, self.maxval)
        return self

    def draw(self, rng: Random) -> float:
        return rng.uniform(self.minval, self.maxval)

    @property
    def ends(self) -> Sequence[float]:
        return (self.minval, self.maxval)

    @property
    def grid(self) -> Sequence[float]:
        return _evenly(self.minval, self.maxval, self.grid_size)

    @property
    def grid_size(self) -> int:
        return _given(self.count)

    def contains(self, value: object) -> bool:
        return isinstance(value, float) and self.minval <= value <= self.maxval


class Log(Section):
    """`base ** x` for a uniform x: minval and maxval are exponents."""

    type: Literal["log"]
    minval: Number
    maxval: Number
    base: Annotated[Number, Field(gt=0)]
    count: PositiveInt | None = None
    """How many numbers a grid has, evenly among the exponents."""

    @model_validator(mode="after")
    def _powers_are_numbers(self) -> Log:
        _in_order(self.minval, self.maxval)
        try:
            powers = self.ends
        except OverflowError:
            powers = (math.inf,)
        if not all(0 < power < math.inf for power in powers):
            raise ValueError(
                f"{self.base:g} ** {self.minval:g} to {self.base:g} ** {self.maxval:g} leaves the "
                "range of numbers; minval and maxval are exponents, not values"
            )
        return self

    def draw(self, rng: Random) -> float:
        return float(self.base ** rng.uniform(self.minval, self.maxval))

    @property
    def ends(self) -> Sequence[float]:
        return (self.base**self.minval, self.base**self.maxval)

    @property
    def grid(self) -> Sequence[float]:
        exponents = _evenly(self.minval, self.maxval, self.grid_size)
        return [self.base**exponent for exponent in exponents]

    @property
    def grid_size(self) -> int:
        return _given(self.count)

    def contains(self, value: object) -> bool:
        return isinstance(value, float) and min(self.ends) <= value <= max(self.ends)


Domain = Const | Categorical | Int | Double | Log

KINDS: Final[dict[str, type[Domain]]] = {
    "const": Const,
    "int": Int,
    "double": Double,
    "log": Log,
    "categorical": Categorical,
}


def _in_order(minval: float, maxval: float) -> None:
    if minval >= maxval:
        raise ValueError(f"minval, {minval}, must be below maxval, {maxval}; exchange or move them")
    if not math.isfinite(maxval - minval):
        raise ValueError(f"from {minval} to {maxval} is too wide; narrow the range")


def _given(count: int | None) -> int:
    assert count is not None, "validated: a grid search needs count"
    return count


def _evenly(low: float, high: float, count: int) -> list[float]:
    """Evenly from low to high; a single one lies in the middle."""
    if count == 1:
        return [(low + high) / 2]
    return [low + i * (high - low) / (count - 1) for i in range(count)]


def _rounded(value: float) -> int:
    """To the nearest whole number, halves away from 0."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))
