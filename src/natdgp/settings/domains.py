"""What one hyperparameter may be: Determined's kinds, each frozen and validated.

`draw` gives one value, `ends` the extreme ones, `grid` those of a grid search, of which there are
`grid_size`, by the rules of Determined 0.38.1; a range includes both bounds.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from random import Random
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from natdgp.fields import Frozen, Number, PositiveInt, Refused, Section


class Const(Frozen):
    """One value, which is not searched over."""

    type: Literal["const"]
    val: Any


class Categorical(Frozen):
    """One of several values of any kind, each as likely."""

    type: Literal["categorical"]
    vals: tuple[Any, ...] = Field(min_length=1)

    def draw(self, rng: Random) -> Any:
        return copy.deepcopy(rng.choice(self.vals))

    @property
    def ends(self) -> Sequence[Any]:
        return self.vals

    grid = ends

    @property
    def grid_size(self) -> int:
        return len(self.vals)


class _Range(Section):
    """A number between two bounds."""

    minval: Number
    maxval: Number
    count: PositiveInt | None = None
    """How many numbers a grid has; of whole numbers all, if there are fewer."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> _Range:
        if self.minval >= self.maxval:
            message = f"minval, {self.minval}, must be below maxval, {self.maxval}"
            raise Refused("bounds-not-in-order", message, "exchange or move them")
        return self

    def value(self, x: float) -> Any:
        """The value for a number between minval and maxval."""
        return x

    def draw(self, rng: Random) -> Any:
        return self.value(rng.uniform(self.minval, self.maxval))

    @property
    def ends(self) -> Sequence[Any]:
        return (self.value(self.minval), self.value(self.maxval))

    @property
    def grid(self) -> Sequence[Any]:
        low, count = self.minval, self.grid_size
        if count == 1:
            return [self.value((low + self.maxval) / 2)]
        return [self.value(low + i * (self.maxval - low) / (count - 1)) for i in range(count)]

    @property
    def grid_size(self) -> int:
        assert self.count is not None, "validated: a grid search needs count"
        return self.count


class Int(_Range):
    """A whole number, each as likely."""

    type: Literal["int"]
    minval: Annotated[int, Field(strict=True)]
    maxval: Annotated[int, Field(strict=True)]

    def value(self, x: float) -> int:
        """To the nearest whole number, halves away from 0."""
        return int(math.copysign(math.floor(abs(x) + 0.5), x))

    def draw(self, rng: Random) -> int:
        return rng.randint(self.minval, self.maxval)

    @property
    def grid_size(self) -> int:
        return min(super().grid_size, self.maxval - self.minval + 1)


class Double(_Range):
    """A number, uniformly."""

    type: Literal["double"]


class Log(_Range):
    """`base ** x` for a uniform x: minval and maxval are exponents."""

    type: Literal["log"]
    base: Annotated[Number, Field(gt=0)]

    @model_validator(mode="after")
    def _powers_are_numbers(self) -> Log:
        try:
            powers = self.ends
        except OverflowError:
            powers = (math.inf,)
        if not all(0 < power < math.inf for power in powers):
            raise Refused(
                "powers-out-of-range",
                f"{self.base:g} ** {self.minval:g} to {self.base:g} ** {self.maxval:g} leaves the "
                "range of numbers",
                "minval and maxval are exponents, not values",
            )
        return self

    def value(self, x: float) -> float:
        return float(self.base**x)


Domain = Categorical | Int | Double | Log

Hyperparameter = Annotated[Const | Int | Double | Log | Categorical, Field(discriminator="type")]
