"""YAML text as plain values, with the file and line of every one of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from natdgp.settings.problems import Problem, SettingsError

Place = tuple[str | None, int | None]
"""A file and a line, each if known."""


@dataclass
class Document:
    """Values, and the place that each path was read from."""

    values: Any
    file: str | None = None
    places: dict[str, Place] = field(default_factory=dict)

    def locate(self, problem: Problem) -> Problem:
        """The problem with the place of its field, or of the group that lacks the field."""
        path = problem.path
        while path and path not in self.places:
            path = path.rpartition(".")[0]
        file, line = self.places.get(path, (self.file, None))
        return replace(problem, file=file, line=line)


def read_document(path: Path) -> Document:
    """Read a YAML file whose root is a group of fields.

    :raises SettingsError: for a file that cannot be read, has another root, or is not YAML as
        `parse` reads it.
    """
    file = str(path)
    try:
        document = parse(path.read_text(encoding="utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        said = f"unreadable: {getattr(error, 'strerror', 'it is not UTF-8 text')}"
        if isinstance(error, FileNotFoundError):
            said = "there is no such file"
        raise _single(said, "name a YAML file", "unreadable-file", file) from None
    if not isinstance(document.values, dict):
        message = "an experiment file must be a group of fields"
        raise _single(message, "write a line `field: value` for each field", "no-fields", file)
    return document


def parse(text: str, file: str | None = None) -> Document:
    """Read YAML in the dialect of Determined's command line: YAML 1.2, no tags of one's own.

    :raises SettingsError: for text that is not YAML, has a key twice, or holds anything but
        groups, lists, text, numbers, true, false and null.
    """
    document, problems = Document(None, file), list[Problem]()
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
        if root is not None:
            _survey(root, "", None, document, problems)
        if not problems:
            document.values = yaml.load(text)
    except (YAMLError, ValueError, LookupError, RecursionError) as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        what = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        message = f"not valid YAML: {str(what).partition(' with value')[0]}"
        line = mark.line + 1 if mark else None
        raise _single(message, "correct the text there", "not-yaml", file, line) from None
    if problems:
        raise SettingsError(problems)
    return document


def apply_override(document: Document, override: str) -> Document:
    """The document with one field set, as if it stood so in the file.

    Groups on the way are made where there are none, and whatever stood at the path is replaced.
    A path that no field has is found out when the document is validated, as in a file.

    :param override: `path=value`, such as `hyperparameters.model.layers=3`; the value is YAML.
    :raises SettingsError: for an override that is not `path=value`, or a value that is not YAML.
    """
    origin = f"--set {override}"
    path, equals, text = override.partition("=")
    path = path.strip()
    *above, name = path.split(".")
    if not equals or not all([*above, name]):
        remedy = "write it as in --set hyperparameters.model.layers=3"
        raise _single("must be path=value", remedy, "not-an-override", origin)
    try:
        value = parse(text).values
    except SettingsError as error:
        located = [replace(p, path=path, file=origin, line=None) for p in error.problems]
        raise SettingsError(located) from None

    values = copy.deepcopy(document.values)
    group: dict[str, Any] = values
    for part in above:
        if not isinstance(group.get(part), dict):
            group[part] = {}
        group = group[part]
    group[name] = value
    inside = f"{path}."
    places = {at: p for at, p in document.places.items() if not f"{at}.".startswith(inside)}
    return Document(values, document.file, {**places, path: (origin, None)})


_TAG: Final = "tag:yaml.org,2002:"
_PLAIN: Final = {f"{_TAG}{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}


def _survey(
    node: Node, path: str, line: int | None, document: Document, problems: list[Problem]
) -> None:
    """Note the place of a node and of all nodes in it, and those that hold no plain value."""
    document.places[path] = (document.file, line)
    if node.tag not in _PLAIN:  # a date, say, which the master's JSON has no form for
        message = f"a value of kind {str(node.tag).removeprefix(_TAG)} is not allowed"
        remedy, code = "quote it as text", "not-plain"
        problems.append(Problem(path, None, message, remedy, code, line, document.file))
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _survey(item, f"{path}.{index}", item.start_mark.line + 1, document, problems)
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            if key.tag != f"{_TAG}merge":
                where = f"{path}.{key.value}" if path else str(key.value)
                _survey(value, where, key.start_mark.line + 1, document, problems)


def _single(
    message: str, remedy: str, code: str, file: str | None, line: int | None = None
) -> SettingsError:
    return SettingsError([Problem("", None, message, remedy, code, line, file)])
