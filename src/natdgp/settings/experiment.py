"""The experiment file: one YAML file that a cluster and a local run both read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from natdgp.settings.checks import CHECKS
from natdgp.settings.configuration import Configuration, defaulted, trial_of
from natdgp.settings.document import read_document
from natdgp.settings.hyperparameters import split_hyperparameters
from natdgp.settings.overrides import apply_override
from natdgp.settings.problems import Problem, SettingsError, problems_from
from natdgp.settings.schema import Settings


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


def read_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read and validate an experiment file.

    :param overrides: fields set on the command line, each `path=value`.
    :raises SettingsError: with all problems of the file and the overrides, each with its place.
    """
    document = read_document(path)
    malformed: list[Problem] = []
    for override in overrides:
        try:
            document = apply_override(document, override)
        except SettingsError as error:
            malformed += error.problems
    config, settings, problems = _examine(document.values)
    problems = malformed + sorted(map(document.locate, problems), key=lambda p: p.line or 0)
    if settings is None or problems:
        raise SettingsError(problems)
    return Experiment(config, settings, str(path))


def validate(config: Mapping[str, Any]) -> list[Problem]:
    """All problems of an experiment configuration in plain values; none if it can be trained."""
    return _examine(config)[2]


def _examine(
    config: Mapping[str, Any],
) -> tuple[dict[str, Any], Settings | None, list[Problem]]:
    """The defaulted configuration and settings as far as they are valid, and all problems."""
    given, data = config.get("hyperparameters"), config.get("data")
    constants, problems = split_hyperparameters(given if isinstance(given, Mapping) else {})
    plain = {**config, "hyperparameters": constants} if isinstance(given, Mapping) else config

    defaults: dict[str, Any] = {}
    try:
        defaults = defaulted(Configuration.model_validate(plain))
    except ValidationError as error:
        _add(problems, problems_from(error, Configuration, section=""))

    settings = None
    try:
        settings = Settings.read(constants, data if isinstance(data, Mapping) else {})
    except SettingsError as error:
        _add(problems, error.problems)

    for check in CHECKS:
        _add(problems, check(plain))
    return defaults, settings, problems


def _add(problems: list[Problem], found: Iterable[Problem]) -> None:
    """Add what is found to the problems, but for what only follows from one of them."""
    known = [f"{problem.path}." for problem in problems]
    for problem in found:
        path = f"{problem.path}."
        if not any(path.startswith(other) or other.startswith(path) for other in known):
            problems.append(problem)
