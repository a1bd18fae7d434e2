"""What is wrong with a file: problems a user can act on, all reported together."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError, ValidationInfo, ValidatorFunctionWrapHandler
from pydantic_core import ErrorDetails

Path = tuple[str, ...]
Groups = tuple[type[BaseModel], ...]

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
    error: ValidationError, kind: Any, section: str = "hyperparameters"
) -> tuple[Problem, ...]:
    """Translate a failed validation into problems.

    :param kind: what was validated, a group of fields or a union of such.
    :param section: where in the experiment configuration the fields lie, but for `data`, which is a
        section of its own; empty for its root.
    """
    found: dict[Path, list[ErrorDetails]] = {}
    around: dict[Path, Groups] = {}
    for details in error.errors(include_url=False):
        path, inside = _place(details, kind)
        if section and path[:1] != ("data",):
            path = (section, *path)
        found.setdefault(path, []).append(details)
        around[path] = inside
    # A union reports one error for each variant; those that went deepest are the ones meant.
    return tuple(
        _problem(path, errors, around[path])
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


def note_valid(given: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """A validator around that of a field: what is valid is noted, whatever is wrong beside it.

    The context of a validation, if it has one, is the dictionary that takes the fields by name.
    """
    valid = read(given)
    if info.context is not None:
        info.context[info.field_name] = valid
    return valid


_CODES: Final = {
    "missing|union_tag_not_found": "missing-field",
    "extra_forbidden|invalid_key": "unknown-field",
    "literal_error|union_tag_invalid": "unknown-word",
    "greater|less|finite|.*too_(short|long)": "out-of-range",
    "": "wrong-type",
}
"""By the beginning of pydantic's own."""


def _code(details: ErrorDetails) -> str:
    return next(code for pattern, code in _CODES.items() if re.match(pattern, details["type"]))


def _place(details: ErrorDetails, kind: Any) -> tuple[Path, Groups]:
    """The path of an error, and the group that it ends in, or all variants that it may be."""
    path, around, inside = list[str](), groups(kind), groups(kind)
    discriminator = str(details.get("ctx", {}).get("discriminator", "")).strip("'")
    location = [*details["loc"], *filter(None, [discriminator])]
    for index, part in enumerate(location):
        fields = [g.model_fields[str(part)].annotation for g in inside if part in g.model_fields]
        unknown = _code(details) == "unknown-field" and index == len(location) - 1
        if isinstance(part, int):  # of a list, whose groups are inside already
            path.append(str(part))
            around = inside
        elif fields or unknown:
            path.append(str(part))
            around, inside = inside, tuple(group for field in fields for group in groups(field))
        else:  # the name of a variant, which its discriminator accepts
            inside = tuple(g for g in inside if part in _words_of(g)) or inside
    return tuple(path), around


def _words_of(group: type[BaseModel]) -> list[str]:
    return [word for field in group.model_fields.values() for word in choices(field.annotation)]


def _problem(path: Path, errors: Sequence[ErrorDetails], around: Groups) -> Problem:
    details, where, name = errors[0], ".".join(path), path[-1] if path else ""
    code, received = _code(details), details["input"]
    if details["type"] == "value_error":
        refused = details["ctx"]["error"]
        received = None if isinstance(received, Mapping) else received
        return Problem(where, received, refused.message, refused.remedy, refused.code)
    fields = [(field, info) for group in around for field, info in group.model_fields.items()]
    words = [word for field, info in fields if field == name for word in choices(info.annotation)]
    among = f"one of {', '.join(dict.fromkeys(words))}"
    if code == "missing-field":
        remedy = f"add `{name}:` to {'.'.join(path[:-1]) or 'the file'}"
        return Problem(where, None, f"required; {among}" if words else "required", remedy, code)
    if code == "unknown-field":
        allowed = dict(fields)
        message = f"there is no field {name}; allowed here: {', '.join(allowed)}"
        return Problem(where, received, message, _meant(name, allowed) or "remove it", code)
    if details["type"] == "union_tag_invalid":
        received = received[name]
    rules = (f"must be {among}" if _code(e) == "unknown-word" else _rule(e) for e in errors)
    message = ", or ".join(dict.fromkeys(rules)).replace(", or must ", ", or ")
    return Problem(where, received, message, _meant(received, words) or "set another value", code)


def _rule(details: ErrorDetails) -> str:
    """Pydantic's rule in a file's words."""
    rule = re.sub(r"^\w+ should", "must", details["msg"]).partition(" after")[0]
    return re.sub("a valid dictionary.*", "a group of fields", rule).replace("valid tuple", "list")


def _meant(name: object, candidates: Iterable[str]) -> str | None:
    """What to do about a misspelt name, if any candidate is near."""
    found = difflib.get_close_matches(name, list(candidates), n=1) if isinstance(name, str) else []
    return f"did you mean {found[0]}?" if found else None
