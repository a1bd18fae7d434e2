"""What is wrong with a file: problems a user can act on, all reported together."""

from __future__ import annotations

import enum
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from natdgp.settings.allowed import allowed, choices, groups, item, nearest


class Missing(enum.Enum):
    """The type of MISSING, which stands for a value that was not given."""

    MISSING = "nothing"


MISSING: Final = Missing.MISSING

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


@dataclass(frozen=True)
class Problem:
    """One wrong field of an experiment file."""

    path: str
    """Where, in the experiment configuration: `hyperparameters.model.layers`."""
    received: object
    """The value that was given, or MISSING."""
    message: str
    """What is wrong, and what is allowed."""
    remedy: str
    """What to do."""
    line: int | None = None
    file: str | None = None
    unknown: bool = False
    """Whether there is no such field."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        where = ": ".join(part for part in (place, self.path) if part)
        value = "" if self.received is MISSING else f" received {_SHORT.repr(self.received)};"
        return f"{where}:{value} {self.message}\n    {self.remedy}"


class SettingsError(ValueError):
    """An experiment that cannot run, with all its problems."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        title = f"{count} problem{'' if count == 1 else 's'} in the experiment's settings"
        return "\n\n".join([title, *map(str, self.problems)])

    @classmethod
    def single(cls, path: str, received: object, message: str, remedy: str) -> SettingsError:
        """An error with one problem."""
        return cls([Problem(path, received, message, remedy)])


def problems_from(
    error: ValidationError, model: type[BaseModel], section: str = "hyperparameters"
) -> tuple[Problem, ...]:
    """Translate a failed validation into problems.

    :param model: what was validated; its fields lie in `section`, but for `data`, which is a
        section of its own.
    :param section: where in the experiment configuration the fields lie; empty for its root.
    """
    found: dict[str, Problem] = {}
    for details in error.errors(include_url=False):
        problem = _problem(details, model, section)
        found.setdefault(problem.path, problem)
    # A union reports one error for each variant; the one that went deepest is the one meant.
    return tuple(
        problem
        for path, problem in found.items()
        if not any(other.startswith(f"{path}.") for other in found)
    )


@dataclass
class _Place:
    """A location of a validation error, followed through the annotations."""

    path: list[str]
    annotation: Any
    constraints: Sequence[Any] = ()
    default: object = PydanticUndefined

    def enter(self, part: str | int, *, unknown: bool) -> None:
        """Follow one part of a location.

        Parts that only say which variant of a union was tried leave the path as it is.
        """
        inside = groups(self.annotation)
        if len(inside) > 1:
            self.annotation = next(g for g in inside if part in _tags(g))
        elif unknown:
            self.path.append(str(part))
        elif inside and part in inside[0].model_fields:
            field = inside[0].model_fields[str(part)]
            self.path.append(str(part))
            self.annotation, self.constraints = field.annotation, field.metadata
            self.default = field.default
        elif isinstance(part, int):
            self.path.append(str(part))
            self.annotation, self.constraints = item(self.annotation), ()
            self.default = PydanticUndefined


def _problem(details: ErrorDetails, model: type[BaseModel], section: str) -> Problem:
    kind, location, received = details["type"], details["loc"], details["input"]
    unknown = kind in ("extra_forbidden", "invalid_key")
    place = _Place([], model)
    for index, part in enumerate(location):
        place.enter(part, unknown=unknown and index == len(location) - 1)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_variant(details, place, section)

    path = _join(place.path, section)
    group, _, name = path.rpartition(".")
    if unknown:
        siblings = groups(place.annotation)[0].model_fields
        paths = (_join([*place.path[:-1], sibling], section) for sibling in siblings)
        return _unknown_field(path, received, [p for p in paths if p.rpartition(".")[0] == group])
    if kind == "value_error":
        # By convention a validator's text is "what is wrong; what to do".
        message, _, remedy = str(details["ctx"]["error"]).rpartition("; ")
        return Problem(path, MISSING if groups(place.annotation) else received, message, remedy)
    must = f"must be {allowed(place.annotation, place.constraints)}"
    if kind == "missing":
        return Problem(
            path, MISSING, f"required; {must}", f"add `{name}:` to {group or 'the file'}"
        )
    return Problem(path, received, must, _remedy(received, choices(place.annotation), place))


def _unknown_field(path: str, received: object, known: Sequence[str]) -> Problem:
    name, *names = (one.rpartition(".")[2] for one in (path, *known))
    meant = nearest(name, names)
    return Problem(
        path,
        received,
        f"there is no field {name}; allowed here: {', '.join(names)}",
        f"did you mean {meant}?" if meant else "remove it",
        unknown=True,
    )


def _wrong_variant(details: ErrorDetails, place: _Place, section: str) -> Problem:
    name = details["ctx"]["discriminator"].strip("'")
    tags = [tag for group in groups(place.annotation) for tag in _tags(group)]
    path = _join([*place.path, name], section)
    received = details["input"].get(name, MISSING)
    message = f"must be one of {', '.join(tags)}"
    if received is MISSING:
        group = path.rpartition(".")[0]
        return Problem(path, MISSING, f"required; {message}", f"add `{name}:` to {group}")
    return Problem(path, received, message, _remedy(received, tags, place))


def _remedy(received: object, words: Iterable[str], place: _Place) -> str:
    meant = nearest(received, words) if isinstance(received, str) else None
    if meant:
        return f"did you mean {meant}?"
    if place.default is PydanticUndefined:
        return "set another value"
    if place.default is None or isinstance(place.default, BaseModel):
        return "set another value, or remove the field for the default"
    return f"set another value, or remove the field for the default, {place.default}"


def _tags(group: type[BaseModel]) -> tuple[str, ...]:
    """The words by which a discriminated union knows a group: those of its first field."""
    return choices(next(iter(group.model_fields.values())).annotation)


def _join(parts: Sequence[str], section: str) -> str:
    in_section = section and parts[:1] != ["data"]
    return ".".join([section, *parts] if in_section else parts)
