"""The space that a search draws from: nested groups of hyperparameters, constants included."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from natdgp.settings.domains import Const, Domain, Hyperparameter
from natdgp.settings.problems import Problem, problems_from

SECTION = "hyperparameters"

CORNERS: Final = 1024
"""Points that are tried at which every hyperparameter is extreme, at most."""
SAMPLES: Final = 256
"""Random points that are tried."""

Path = tuple[str, ...]
Point = dict[str, Any]
"""A value for every hyperparameter, in nested groups, as a trial receives them."""


@dataclass(frozen=True)
class Space:
    """Every hyperparameter and what it may be, by path through the groups."""

    fixed: Mapping[Path, Any]
    domains: Mapping[Path, Domain]
    """Of those that are searched over, in order of the paths."""

    @property
    def constants(self) -> Point:
        """The constants alone, in their groups."""
        return Space(self.fixed, {})._point(())

    def searched(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """What a point has for each hyperparameter that is searched over, by dotted path."""
        return {".".join(path): value_at(point, path) for path in self.domains}

    def sample(self, rng: Random) -> Point:
        """A random point."""
        return self._point(domain.draw(rng) for domain in self.domains.values())

    @property
    def grid_size(self) -> int:
        """How many points the grid has."""
        return math.prod(domain.grid_size for domain in self.domains.values())

    @cached_property
    def grid(self) -> Sequence[Point]:
        """Every point of the grid, the last hyperparameter changing fastest."""
        return self._points_of(domain.grid for domain in self.domains.values())

    def tried(self) -> Iterator[Point]:
        """Points that stand for all, the same ones every time; a space of constants has one.

        At first those at which every hyperparameter is extreme, or some of very many; then random
        ones.
        """
        rng, ends = Random(0), [domain.ends for domain in self.domains.values()]
        if math.prod(map(len, ends)) <= CORNERS:
            yield from self._points_of(ends)
        else:
            yield from (self._point(map(rng.choice, ends)) for _ in range(CORNERS))
        yield from (self.sample(rng) for _ in range(SAMPLES if self.domains else 0))

    def _points_of(self, axes: Iterable[Sequence[Any]]) -> list[Point]:
        return list(map(self._point, itertools.product(*axes)))

    def _point(self, values: Iterable[Any]) -> Point:
        point: Point = {}
        searched = zip(self.domains, values, strict=True)
        for path, value in sorted({**self.fixed, **dict(searched)}.items(), key=lambda at: at[0]):
            set_at(point, path, value)
        return point


def read_space(hyperparameters: Mapping[str, Any]) -> tuple[Space, list[Problem]]:
    """The well-formed hyperparameters, and a problem for each of the others."""
    fixed: dict[Path, Any] = {}
    domains: dict[Path, Domain] = {}
    problems: list[Problem] = []
    for path, value in sorted(_leaves(hyperparameters, ()), key=lambda leaf: leaf[0]):
        if not isinstance(value, Mapping) or not value:
            fixed[path] = value
            continue
        try:
            read = _READ.validate_python(value)
        except ValidationError as error:
            problems += problems_from(error, Hyperparameter, ".".join([SECTION, *path]))
        else:
            if isinstance(read, Const):
                fixed[path] = read.val
            else:
                domains[path] = read
    return Space(fixed, domains), problems


_READ: Final[TypeAdapter[Const | Domain]] = TypeAdapter(Hyperparameter)


def value_at(group: Any, path: Path) -> Any:
    """The value at a path through nested groups, or None."""
    for name in path:
        group = group.get(name) if isinstance(group, Mapping) else None
    return group


def set_at(group: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Put a value at a path; groups on the way are made where there are none."""
    for name in path[:-1]:
        if not isinstance(group.get(name), dict):
            group[name] = {}
        group = group[name]
    group[path[-1]] = value


def _leaves(group: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    for name, value in group.items():
        if isinstance(value, Mapping) and value and "type" not in value:
            yield from _leaves(value, (*path, str(name)))
        else:
            yield (*path, str(name)), value
