"""The space that a search draws from: nested groups of hyperparameters, constants included."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import ValidationError

from natdgp.settings.allowed import nearest
from natdgp.settings.domains import KINDS, Const, Domain
from natdgp.settings.problems import Problem, SettingsError, problems_from

SECTION = "hyperparameters"

Path = tuple[str, ...]
Point = dict[str, Any]
"""A value for every hyperparameter, in nested groups, as a trial receives them."""


@dataclass(frozen=True)
class Space:
    """Every hyperparameter and what it may be."""

    domains: tuple[tuple[Path, Domain], ...]
    """By path through the groups, in order of the paths."""

    @classmethod
    def read(cls, hyperparameters: Mapping[str, Any]) -> Space:
        """Read the section of an experiment configuration.

        :raises SettingsError: with a problem for each malformed hyperparameter.
        """
        space, problems = read_space(hyperparameters)
        if problems:
            raise SettingsError(problems)
        return space

    @property
    def searched(self) -> dict[str, Domain]:
        """The hyperparameters that are not constant, by their place in the configuration."""
        return {
            ".".join([SECTION, *path]): domain
            for path, domain in self.domains
            if not isinstance(domain, Const)
        }

    @property
    def constants(self) -> Point:
        """The constants alone, in their groups."""
        return _nested({path: d.val for path, d in self.domains if isinstance(d, Const)})

    def sample(self, rng: Random) -> Point:
        """A random point."""
        return _nested({path: domain.draw(rng) for path, domain in self.domains})

    @property
    def grid_size(self) -> int:
        """How many points the grid has."""
        return math.prod(domain.grid_size for _, domain in self.domains)

    def grid_point(self, index: int) -> Point:
        """A point of the grid, the last hyperparameter changing fastest."""
        values: list[Any] = []
        for _, domain in reversed(self.domains):
            index, place = divmod(index, len(domain.grid))
            values.insert(0, domain.grid[place])
        return self._point(values)

    def grid(self) -> Iterator[Point]:
        """Every point of the grid, in order."""
        return map(self.grid_point, range(self.grid_size))

    def corners(self, most: int, rng: Random) -> Iterator[Point]:
        """Points at which every hyperparameter is extreme: all, or `most` random ones of more."""
        ends = [list(domain.ends) for _, domain in self.domains]
        if math.prod(map(len, ends)) <= most:
            return map(self._point, itertools.product(*ends))
        drawn = ([rng.choice(of) for of in ends] for _ in range(most))
        return map(self._point, drawn)

    def contains(self, point: Mapping[str, Any]) -> bool:
        """Whether a point has a value of each hyperparameter's domain, and no others."""
        inside = all(domain.contains(value_at(point, path)) for path, domain in self.domains)
        return inside and point == self._point(value_at(point, path) for path, _ in self.domains)

    def to_plain(self) -> dict[str, Any]:
        """The section it was read from, constants that are no groups as bare values."""
        return _nested({path: _plain(domain) for path, domain in self.domains})

    def _point(self, values: Iterable[Any]) -> Point:
        return _nested(dict(zip((path for path, _ in self.domains), values, strict=True)))


def read_space(hyperparameters: Mapping[str, Any]) -> tuple[Space, list[Problem]]:
    """The well-formed hyperparameters, and a problem for each of the others."""
    domains: dict[Path, Domain] = {}
    problems: list[Problem] = []
    for path, value in _leaves(hyperparameters, ()):
        domain = _read(path, value)
        if isinstance(domain, list):
            problems += domain
        else:
            domains[path] = domain
    return Space(tuple(sorted(domains.items(), key=lambda item: item[0]))), problems


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
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _read(path: Path, value: Any) -> Domain | list[Problem]:
    if not isinstance(value, Mapping) or not value:
        return Const(val=value)
    where = ".".join([SECTION, *path])
    kind = value["type"]
    if not isinstance(kind, str) or kind not in KINDS:
        return [_unknown_kind(where, kind)]
    try:
        return KINDS[kind].model_validate(dict(value))
    except ValidationError as error:
        return list(problems_from(error, KINDS[kind], section=where))


def _unknown_kind(where: str, kind: object) -> Problem:
    meant = nearest(kind, KINDS)
    return Problem(
        f"{where}.type",
        kind,
        f"must be one of {', '.join(KINDS)}",
        f"did you mean {meant}?" if meant else "write the value itself for a constant",
    )


def _plain(domain: Domain) -> Any:
    if isinstance(domain, Const) and not isinstance(domain.val, Mapping):
        return domain.val
    if isinstance(domain, Const) and not domain.val:
        return {}
    return domain.model_dump(mode="json", exclude_none=not isinstance(domain, Const))


def _nested(values: Mapping[Path, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, value in values.items():
        group = root
        for name in path[:-1]:
            group = group.setdefault(name, {})
        group[path[-1]] = value
    return root
