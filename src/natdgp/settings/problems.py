"""What is wrong with a file: problems a user can act on, all reported together."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from natdgp.fields import Refused

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


@dataclass(frozen=True)
class Problem:
    """One wrong field of an experiment file."""

    path: str
    """Where, in the experiment configuration: `hyperparameters.model.layers`."""
    received: object
    """The value that was given, if one was."""
    message: str
    """What is wrong, and what is allowed."""
    remedy: str
    """What to do."""
    code: str = ""
    """What kind of problem, where tests or programs ask for it; it stays when words change."""
    line: int | None = None
    file: str | None = None

    @property
    def unknown(self) -> bool:
        """Whether there is no such field."""
        return self.code == "unknown-field"

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        where = ": ".join(part for part in (place, self.path) if part)
        value = "" if self.received is None else f" received {_SHORT.repr(self.received)};"
        code = f" [{self.code}]" if self.code else ""
        return f"{where}:{value} {self.message}{code}\n    {self.remedy}"


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
    def single(
        cls, path: str, received: object, message: str, remedy: str, code: str = ""
    ) -> SettingsError:
        """An error with one problem."""
        return cls([Problem(path, received, message, remedy, code)])


def problems_from(
    error: ValidationError,
    model: type[BaseModel],
    given: Mapping[str, Any],
    section: str = "hyperparameters",
) -> tuple[Problem, ...]:
    """Translate a failed validation into problems.

    :param model: what was validated; its fields lie in `section`, but for `data`, which is a
        section of its own.
    :param given: the values that were validated.
    :param section: where in the experiment configuration the fields lie; empty for its root.
    """
    found: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_path(details, given), []).append(details)
    # A union reports one error for each variant; those that went deepest are the ones meant.
    return tuple(
        _problem(path, errors, model, section)
        for path, errors in found.items()
        if not any(len(other) > len(path) and other[: len(path)] == path for other in found)
    )


def groups(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The groups of fields among the variants of an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return tuple(group for member in get_args(annotation) for group in groups(member))


def choices(annotation: Any) -> tuple[str, ...]:
    """Every word that an annotation accepts literally."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    return tuple(word for member in get_args(annotation) for word in choices(member))


def nearest(name: object, candidates: Iterable[str]) -> str | None:
    """The candidate that a misspelt name most likely means, if any is near."""
    found = difflib.get_close_matches(str(name), list(candidates), n=1, cutoff=0.6)
    return found[0] if found else None


_CODES: Final = {
    "missing|union_tag_not_found": "missing-field",
    "extra_forbidden|invalid_key": "unknown-field",
    "literal_error|union_tag_invalid": "unknown-word",
    "greater|less|finite|.*too_(short|long)": "out-of-range",
    "": "wrong-type",
}
"""By the beginning of pydantic's own."""

_GROUP: Final = "must be a group of fields"
_PLAIN: Final = {"tuple_type": "must be a list", "dict_type": _GROUP, "model_type": _GROUP}


def _path(details: ErrorDetails, given: Any) -> tuple[str, ...]:
    """Where an error lies; parts of its location that only name a variant are no keys in it."""
    path: list[str] = []
    location, lacks = details["loc"], details["type"] in ("missing", "invalid_key")
    for index, part in enumerate(location):
        of_list = isinstance(given, list | tuple) and isinstance(part, int)
        inside = of_list or (isinstance(given, Mapping) and part in given)
        if inside or (lacks and index == len(location) - 1):
            path.append(str(part))
        given = given[part] if inside else given
    if "discriminator" in details.get("ctx", {}):
        path.append(_discriminator(details))
    return tuple(path)


def _discriminator(details: ErrorDetails) -> str:
    return str(details["ctx"]["discriminator"]).strip("'")


def _problem(
    path: tuple[str, ...], errors: Sequence[ErrorDetails], model: type[BaseModel], section: str
) -> Problem:
    details = errors[0]
    code = next(c for pattern, c in _CODES.items() if re.match(pattern, details["type"]))
    inside = [section] if section and path[:1] != ("data",) else []
    *above, name = *inside, *path
    where, group, received = ".".join([*inside, *path]), ".".join(above), details["input"]
    around = _groups_around(model, details["loc"], path)
    fields = {field: info for g in around for field, info in g.model_fields.items()}
    field = fields.get(name)
    if details["type"] == "value_error":
        refused = details["ctx"]["error"]
        if not isinstance(refused, Refused):
            refused = Refused("inconsistent", str(refused), "set another value")
        received = None if isinstance(received, Mapping) else received
        return Problem(where, received, refused.message, refused.remedy, refused.code)
    if code == "missing-field":
        infos = [g.model_fields[name] for g in around if name in g.model_fields]
        words = ", ".join(dict.fromkeys(w for info in infos for w in choices(info.annotation)))
        message = f"required; one of {words}" if words else "required"
        return Problem(where, None, message, f"add `{name}:` to {group or 'the file'}", code)
    if code == "unknown-field":
        message = f"there is no field {name}; allowed here: {', '.join(fields)}"
        return Problem(where, received, message, _meant(name, fields) or "remove it", code)
    if details["type"] == "union_tag_invalid":
        received = received[_discriminator(details)]
    message = ", or ".join(dict.fromkeys(map(_rule, errors))).replace(", or must ", ", or ")
    literal = [word for error in errors for word in _words(error)]
    meant = _meant(received, literal) if isinstance(received, str) else None
    return Problem(where, received, message, meant or _another(field), code)


def _rule(details: ErrorDetails) -> str:
    if words := _words(details):
        return f"must be one of {', '.join(words)}"
    plain = _PLAIN.get(details["type"].replace("attributes_", ""), details["msg"])
    return re.sub("^(Input|String|List|Tuple) should", "must", plain.partition(" after")[0])


def _words(details: ErrorDetails) -> list[str]:
    context = details.get("ctx", {})
    return re.findall("'([^']*)'", context.get("expected", context.get("expected_tags", "")))


def _meant(name: object, candidates: Iterable[str]) -> str | None:
    meant = nearest(name, candidates)
    return f"did you mean {meant}?" if meant else None


def _another(field: FieldInfo | None) -> str:
    if field is None or field.is_required():
        return "set another value"
    unsaid = field.default is None or isinstance(field.default, BaseModel)
    default = "" if unsaid else f", {field.default}"
    return f"set another value, or remove the field for the default{default}"


def _groups_around(
    model: type[BaseModel], location: tuple[str | int, ...], path: tuple[str, ...]
) -> list[type[BaseModel]]:
    """The group that a path ends in, or all variants that it may be, by an error's location."""
    inside, entered = [model], 0
    for part in location:
        if entered < len(path) - 1 and str(part) == path[entered]:
            fields = [group.model_fields.get(str(part)) for group in inside]
            inside = [g for field in fields if field for g in groups(field.annotation)]
            entered += 1
        else:  # the name of a variant, which a union knows by its first field
            tags = {g: choices(next(iter(g.model_fields.values())).annotation) for g in inside}
            inside = [g for g in inside if part in tags[g]] or inside
    return inside
