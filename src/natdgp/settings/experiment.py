"""The experiment file: one YAML file that a cluster and a local run both read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from natdgp.settings.checks import FILE_CHECKS, POINT_CHECKS
from natdgp.settings.configuration import Configuration, trial_of
from natdgp.settings.document import apply_override, read_document
from natdgp.settings.domains import Domain
from natdgp.settings.problems import Problem, SettingsError, problems_from
from natdgp.settings.schema import Settings
from natdgp.settings.searchers import GridSearcher, Searcher
from natdgp.settings.space import SECTION, Point, Space, read_space

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class _Configured:
    """A valid experiment file, read once."""

    config: dict[str, Any]
    """The experiment configuration in plain values, with the defaults of Determined's master."""

    @property
    def trial(self) -> str:
        """The trial's class, as `module:Class`."""
        trial = trial_of(self.config["entrypoint"])
        assert trial is not None, "validated"
        return trial

    @property
    def slots(self) -> int:
        """Processes that share a batch; in a run's folder, as many as were used."""
        return int(self.config["resources"]["slots_per_trial"])

    @property
    def seed(self) -> int:
        """Where all randomness starts."""
        return int(self.config["reproducibility"]["experiment_seed"])

    def with_slots(self, slots: int) -> Self:
        """The experiment as it is trained on so many slots."""
        resources = {**self.config["resources"], "slots_per_trial": slots}
        return replace(self, config={**self.config, "resources": resources})


@dataclass(frozen=True)
class Experiment(_Configured):
    """A valid experiment with constant hyperparameters."""

    settings: Settings


@dataclass(frozen=True)
class Search(_Configured):
    """A valid experiment whose hyperparameters may be searched over."""

    space: Space
    searcher: Searcher


def read_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read and validate an experiment file that is to be trained as it stands.

    :param overrides: fields set on the command line, each `path=value`.
    :raises SettingsError: with all problems of the file and the overrides, each with its place;
        what is searched over is one.
    """
    configuration, space = _read(path, overrides, searches=False, local=True)
    config = {**configuration.defaulted(), "hyperparameters": space.constants}
    return Experiment(config, Settings.read(space.constants, configuration.data))


def read_search(path: Path, overrides: Sequence[str] = (), *, local: bool = True) -> Search:
    """Read and validate an experiment file that may search; constants are a search of one point.

    :param overrides: fields set on the command line, each `path=value`.
    :param local: whether this machine is to search, which cannot do all that a cluster can.
    :raises SettingsError: with all problems of the file and the overrides, each with its place.
    """
    configuration, space = _read(path, overrides, searches=True, local=local)
    return Search(configuration.defaulted(), space, configuration.searcher)


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
    configuration, space, problems = examine(document.values, searches=searches, local=local)
    problems = malformed + sorted(map(document.locate, problems), key=lambda p: p.line or 0)
    if configuration is None or problems:
        raise SettingsError(problems)
    return configuration, space


def examine(
    config: Mapping[str, Any], *, searches: bool = True, local: bool = False
) -> tuple[Configuration | None, Space, list[Problem]]:
    """The configuration and the space as far as they are valid, and all problems.

    :param config: an experiment configuration in plain values.
    :param searches: whether hyperparameters may be searched over.
    :param local: whether this machine is to run it, which cannot do all that a cluster can.
    """
    given, data = config.get("hyperparameters"), config.get("data")
    space, problems = read_space(given if isinstance(given, Mapping) else {})
    if not searches:
        problems += map(_not_constant, space.domains, space.domains.values())
        space = Space(space.fixed, {})
    valid: dict[str, Any] = {"space": space, "local": local}
    configuration = None
    try:
        configuration = Configuration.model_validate(config, context=valid)
    except ValidationError as error:
        _add(problems, problems_from(error, Configuration, section=""))
    of_file = [problem for check in FILE_CHECKS for problem in check(valid)]

    def problems_at(point: Point) -> Iterator[Problem]:
        at_point = dict(valid)
        try:
            Settings.read(point, data if isinstance(data, Mapping) else {}, at_point)
        except SettingsError as error:
            yield from error.problems
        yield from (problem for check in POINT_CHECKS for problem in check(at_point))

    if not any(problem.path.startswith("hyperparameters") for problem in of_file):
        of_grid = isinstance(valid.get("searcher"), GridSearcher)
        points = space.grid if of_grid else list(space.tried())
        _add(problems, _problems_of_points(space, points, problems_at))
    _add(problems, of_file)
    return configuration, space, problems


def _not_constant(place: tuple[str, ...], domain: Domain) -> Problem:
    path, received = ".".join([SECTION, *place]), domain.model_dump(exclude_none=True)
    message = f"this file searches over {path}, as `natdgp search` does; `natdgp train` needs "
    remedy = f"give it a value: --set {path}=VALUE"
    return Problem(path, received, f"{message}constants", remedy, "not-constant")


def _problems_of_points(
    space: Space, points: Sequence[Point], examine: Callable[[Point], Iterable[Problem]]
) -> Iterator[Problem]:
    """For each field that is wrong at some points, its problem at the first of them."""
    found: dict[str, list[tuple[Problem, Point]]] = {}
    for point in points:
        for problem in examine(point):
            found.setdefault(problem.path, []).append((problem, point))
    for (problem, point), *others in found.values():
        if len(others) + 1 < len(points):
            shown = ", ".join(f"{name}: {value!r}" for name, value in space.searched(point).items())
            problem = replace(problem, message=f"{problem.message} (at the point {{{shown}}})")
        yield problem


def _add(problems: list[Problem], found: Iterable[Problem]) -> None:
    """Add what is found to the problems, but for what only follows from one of them."""
    known = [f"{problem.path}." for problem in problems]
    for problem in found:
        path = f"{problem.path}."
        if not any(path.startswith(other) or other.startswith(path) for other in known):
            problems.append(problem)
