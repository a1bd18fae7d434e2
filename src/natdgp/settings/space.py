"""The space that a search draws from: nested groups of hyperparameters, constants included."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import ValidationError

from natdgp.settings.domains import KINDS, Const, Domain
from natdgp.settings.problems import Problem, nearest, problems_from

SECTION = "hyperparameters"

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
    def searched(self) -> dict[str, Domain]:
        """What is searched over, by its place in the configuration."""
        return {".".join([SECTION, *path]): domain for path, domain in self.domains.items()}

    @property
    def constants(self) -> Point:
        """The constants alone, in their groups."""
        return _nested(self.fixed)

    def sample(self, rng: Random) -> Point:
        """A random point."""
        return self._point(domain.draw(rng) for domain in self.domains.values())

    @property
    def grid_size(self) -> int:
        """How many points the grid has."""
        return math.prod(domain.grid_size for domain in self.domains.values())

    def grid_point(self, index: int) -> Point:
        """A point of the grid, the last hyperparameter changing fastest."""
        values: list[Any] = []
        for domain in reversed(list(self.domains.values())):
            index, place = divmod(index, domain.grid_size)
            values.insert(0, domain.grid[place])
        return self._point(values)

    def corners(self, most: int, rng: Random) -> Iterator[Point]:
        """Points at which every hyperparameter is extreme: all, or `most` random ones of more."""
        ends = [list(domain.ends) for domain in self.domains.values()]
        if math.prod(map(len, ends)) <= most:
            return map(self._point, itertools.product(*ends))
        drawn = ([rng.choice(of) for of in ends] for _ in range(most))
        return map(self._point, drawn)

    def _point(self, values: Iterable[Any]) -> Point:
        return _nested({**self.fixed, **dict(zip(self.domains, values, strict=True))})


def read_space(hyperparameters: Mapping[str, Any]) -> tuple[Space, list[Problem]]:
    """The well-formed hyperparameters, and a problem for each of the others."""
    fixed: dict[Path, Any] = {}
    domains: dict[Path, Domain] = {}
    problems: list[Problem] = []
    for path, value in sorted(_leaves(hyperparameters, ()), key=lambda leaf: leaf[0]):
        where, kind = ".".join([SECTION, *path]), _kind(value)
        if kind is None:
            fixed[path] = value
        elif kind not in KINDS:
            meant = nearest(kind, KINDS)
            remedy = f"did you mean {meant}?" if meant else "write the value itself for a constant"
            message = f"must be one of {', '.join(KINDS)}"
            problems.append(Problem(f"{where}.type", kind, message, remedy, "unknown-word"))
        else:
            try:
                read = KINDS[kind].model_validate(value)
            except ValidationError as error:
                problems += problems_from(error, KINDS[kind], value, section=where)
            else:
                if isinstance(read, Const):
                    fixed[path] = read.val
                else:
                    domains[path] = read
    return Space(fixed, domains), problems


def place_of(name: str) -> Path:
    """The path to a hyperparameter by its place in the configuration."""
    return tuple(name.split(".")[1:])


def value_at(group: Any, path: Path) -> Any:
    """The value at a path through nested groups, or None."""
    for name in path:
        group = group.get(name) if isinstance(group, Mapping) else None
    return group


def _leaves(group: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    for name, value in group.items():
        if isinstance(value, Mapping) and value and "type" not in value:
            yield from _leaves(value, (*path, str(name)))
        else:
            yield (*path, str(name)), value


def _kind(value: Any) -> Any:
    """What kind of hyperparameter a value says that it is, if it does."""
    return str(value["type"]) if isinstance(value, Mapping) and value else None


def _nested(values: Mapping[Path, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, value in sorted(values.items(), key=lambda item: item[0]):
        group = root
        for name in path[:-1]:
            group = group.setdefault(name, {})
        group[path[-1]] = value
    return root
