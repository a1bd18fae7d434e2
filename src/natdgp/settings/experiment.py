"""The experiment file: one YAML file that a cluster and a local run both read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from natdgp.settings.checks import FILE_CHECKS, LOCAL_CHECKS, POINT_CHECKS, is_grid
from natdgp.settings.configuration import Configuration, defaulted, trial_of
from natdgp.settings.document import read_document
from natdgp.settings.domains import Domain
from natdgp.settings.overrides import apply_override
from natdgp.settings.points import problems_of_points
from natdgp.settings.problems import Problem, SettingsError, problems_from
from natdgp.settings.schema import Settings
from natdgp.settings.searchers import Searcher
from natdgp.settings.space import Point, Space, read_space


@dataclass(frozen=True)
class Experiment:
    """A valid experiment with constant hyperparameters."""

    config: dict[str, Any]
    """The experiment configuration in plain values, with the defaults of Determined's master."""
    settings: Settings
    path: str | None = None
    """The file it was read from."""

    @property
    def trial(self) -> str:
        """The trial's class, as `module:Class`."""
        trial = trial_of(self.config["entrypoint"])
        assert trial is not None, "validated"
        return trial


@dataclass(frozen=True)
class Search:
    """A valid experiment whose hyperparameters may be searched over."""

    config: dict[str, Any]
    """The experiment configuration in plain values, with the defaults of Determined's master."""
    space: Space
    searcher: Searcher

    @property
    def seed(self) -> int:
        """Where all randomness of the search starts."""
        return int(self.config["reproducibility"]["experiment_seed"])


def read_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read and validate an experiment file that is to be trained as it stands.

    :param overrides: fields set on the command line, each `path=value`.
    :raises SettingsError: with all problems of the file and the overrides, each with its place;
        what is searched over is one.
    """
    configuration, space = _read(path, overrides, searches=False, local=True)
    config = {**defaulted(configuration), "hyperparameters": space.constants}
    return Experiment(config, Settings.read(space.constants, configuration.data), str(path))


def read_search(path: Path, overrides: Sequence[str] = (), *, local: bool = True) -> Search:
    """Read and validate an experiment file that may search; constants are a search of one point.

    :param overrides: fields set on the command line, each `path=value`.
    :param local: whether this machine is to search, which cannot do all that a cluster can.
    :raises SettingsError: with all problems of the file and the overrides, each with its place.
    """
    configuration, space = _read(path, overrides, searches=True, local=local)
    return Search(defaulted(configuration), space, configuration.searcher)


def validate(config: Mapping[str, Any]) -> list[Problem]:
    """All problems of an experiment configuration in plain values; none if it can be run."""
    return _examine(config, searches=True, local=False)[2]


def _read(
    path: Path, overrides: Sequence[str], *, searches: bool, local: bool
) -> tuple[Configuration, Space]:
    document = read_document(path)
    malformed: list[Problem] = []
    for override in overrides:
        try:
            document = apply_override(document, override)
        except SettingsError as error:
            malformed += error.problems
    configuration, space, problems = _examine(document.values, searches=searches, local=local)
    problems = malformed + sorted(map(document.locate, problems), key=lambda p: p.line or 0)
    if configuration is None or problems:
        raise SettingsError(problems)
    return configuration, space


def _examine(
    config: Mapping[str, Any], *, searches: bool, local: bool
) -> tuple[Configuration | None, Space, list[Problem]]:
    """The configuration and the space as far as they are valid, and all problems."""
    if problems := list(_beyond_all_bounds(config, "")):
        return None, Space(()), problems
    given = config.get("hyperparameters")
    space, problems = read_space(given if isinstance(given, Mapping) else {})
    if not searches:
        problems += [_must_be_constant(path, d) for path, d in space.searched.items()]

    configuration = None
    try:
        configuration = Configuration.model_validate(config)
    except ValidationError as error:
        _add(problems, problems_from(error, Configuration, section=""))

    def problems_at(point: Point) -> Iterator[Problem]:
        yield from _problems_of_settings(config, point)
        plain = {**config, "hyperparameters": point}
        yield from (problem for check in POINT_CHECKS for problem in check(plain))

    of_file = [p for c in FILE_CHECKS + (LOCAL_CHECKS if local else ()) for p in c(config)]
    grid = is_grid(config)
    if not searches:
        _add(problems, problems_at(space.constants))
    elif not (grid and any(p.path.startswith("hyperparameters") for p in of_file)):
        _add(problems, problems_of_points(space, problems_at, of_grid=grid))
    _add(problems, of_file)
    return configuration, space, problems


MOST: Final = {"hyperparameters": 2**31 - 1, "data": 2**31 - 1}
"""The largest whole numbers of TensorFlow's shapes; other sections take those of the master."""


def _beyond_all_bounds(value: Any, path: str) -> Iterator[Problem]:
    """Whole numbers so large that the arithmetic on them would fail."""
    most = MOST.get(path.partition(".")[0], 2**63 - 1)
    named: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        named = value.items()
    elif isinstance(value, list):
        named = enumerate(value)
    elif isinstance(value, int) and abs(value) > most:
        yield Problem(path, value, f"must be within {most:,} of 0", "set another value")
    for name, inner in named:
        yield from _beyond_all_bounds(inner, f"{path}.{name}" if path else str(name))


def _problems_of_settings(config: Mapping[str, Any], point: Point) -> Iterable[Problem]:
    data = config.get("data")
    try:
        Settings.read(point, data if isinstance(data, Mapping) else {})
    except SettingsError as error:
        return error.problems
    return ()


def _must_be_constant(path: str, domain: Domain) -> Problem:
    return Problem(
        path,
        domain.model_dump(exclude_none=True),
        f"this file searches over {path}, as `natdgp search` does; `natdgp train` needs constants",
        f"give it a value: --set {path}=VALUE",
    )


def _add(problems: list[Problem], found: Iterable[Problem]) -> None:
    """Add what is found to the problems, but for what only follows from one of them."""
    known = [f"{problem.path}." for problem in problems]
    for problem in found:
        path = f"{problem.path}."
        if not any(path.startswith(other) or other.startswith(path) for other in known):
            problems.append(problem)
