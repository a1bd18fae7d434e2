"""YAML text as plain values, with the file and line of every one of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from natdgp.settings.problems import Problem, SettingsError
from natdgp.settings.space import set_at

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
        remedy, code = "name a YAML file", "unreadable-file"
        raise SettingsError([Problem("", None, said, remedy, code, None, file)]) from None
    if not isinstance(document.values, dict):
        said, remedy = "an experiment file must be a group of fields", "write lines `field: value`"
        raise SettingsError([Problem("", None, said, remedy, "no-fields", None, file)])
    return document


def parse(text: str, file: str | None = None) -> Document:
    """Read YAML in the dialect of Determined's command line: YAML 1.2, no tags of one's own.

    :raises SettingsError: for text that is not YAML, or has a key twice or a tag of its own.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
        places = {} if root is None else dict(_places(root, "", (file, None)))
        return Document(yaml.load(text), file, places)
    except (YAMLError, ValueError, LookupError, RecursionError) as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        what = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        said = f"not valid YAML: {str(what).partition(' with value')[0]}"
        remedy, line = "correct the text there", mark.line + 1 if mark else None
        raise SettingsError([Problem("", None, said, remedy, "not-yaml", line, file)]) from None


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
    if not equals or not all(path.split(".")):
        remedy = "write it as in --set hyperparameters.model.layers=3"
        said, code = "must be path=value", "not-an-override"
        raise SettingsError([Problem("", None, said, remedy, code, None, origin)])
    try:
        value = parse(text).values
    except SettingsError as error:
        located = [replace(p, path=path, file=origin, line=None) for p in error.problems]
        raise SettingsError(located) from None
    values = copy.deepcopy(document.values)
    set_at(values, path.split("."), value)
    inside = f"{path}."
    places = {at: p for at, p in document.places.items() if not f"{at}.".startswith(inside)}
    return Document(values, document.file, {**places, path: (origin, None)})


def _places(node: Node, path: str, place: Place) -> Iterator[tuple[str, Place]]:
    """The place of a node and of all nodes in it, by path."""
    yield path, place
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _places(item, f"{path}.{index}", (place[0], item.start_mark.line + 1))
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            where = f"{path}.{key.value}".lstrip(".")
            yield from _places(value, where, (place[0], key.start_mark.line + 1))
