"""YAML text as plain values, with the file and line of every one of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from natdgp.settings.problems import MISSING, Problem, SettingsError

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
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        problem = Problem("", MISSING, "there is no such file", "check the path")
    except OSError as error:
        problem = Problem("", MISSING, f"unreadable: {error.strerror}", "name a readable file")
    except UnicodeDecodeError as error:
        problem = Problem("", MISSING, f"not UTF-8 text (byte {error.start})", "save it as UTF-8")
    else:
        document = parse(text, str(path))
        if isinstance(document.values, dict):
            return document
        problem = Problem(
            "",
            document.values,
            "an experiment file must be a group of fields",
            "write a line `field: value` for each field",
        )
    raise SettingsError([replace(problem, file=str(path))])


def parse(text: str, file: str | None = None) -> Document:
    """Read YAML in the dialect of Determined's command line: YAML 1.2, no tags of one's own.

    :raises SettingsError: for text that is not YAML, has a key twice, or holds anything but
        groups, lists, text, numbers, true, false and null.
    """
    document = Document(None, file)
    problems: list[Problem] = []
    yaml = YAML(typ="safe", pure=True)
    try:
        _check_depth(yaml, text)
        root = yaml.compose(text)
        if root is not None:
            _survey(root, "", None, (), document, problems)
        if not problems:
            document.values = yaml.load(text)
    except _TooLarge as error:
        problems = [Problem("", MISSING, str(error), "write a plainer file", file=file)]
    except (YAMLError, ValueError, LookupError) as error:  # not only YAMLError: `!!int x`, `!!int`
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        what = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        message = f"not valid YAML: {str(what).partition(' with value')[0]}"
        problem = Problem("", MISSING, message, "correct the text there")
        problems = [replace(problem, file=file, line=mark.line + 1 if mark else None)]
    if problems:
        raise SettingsError(problems)
    return document


DEEPEST: Final = 50
"""Groups and lists within each other; a valid file has no more than a handful."""

MOST_VALUES: Final = 20_000
"""Values of a file, those that aliases repeat counted each time."""


class _TooLarge(Exception):
    """A file that only means harm."""


def _check_depth(yaml: YAML, text: str) -> None:
    """The parser gives one event after the other, the composer calls itself for every level."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > DEEPEST:
            raise _TooLarge(f"more than {DEEPEST} groups and lists lie within each other")


_TAG = "tag:yaml.org,2002:"
_PLAIN = {f"{_TAG}{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}


def _survey(
    node: Node,
    path: str,
    line: int | None,
    parents: tuple[Node, ...],
    document: Document,
    problems: list[Problem],
) -> None:
    """Note the place of a node and all nodes in it, and what is not plain about them."""
    document.places.setdefault(path, (document.file, line))
    if len(document.places) > MOST_VALUES:
        raise _TooLarge(f"there are more than {MOST_VALUES:,} values, aliases written out")

    def complain(where: str, at: int | None, message: str, remedy: str) -> None:
        problems.append(Problem(where, MISSING, message, remedy, line=at, file=document.file))

    if node in parents:
        return complain(path, line, "an alias refers to the group it lies in", "write it out")
    if node.tag not in _PLAIN:
        kind = str(node.tag).removeprefix(_TAG)
        return complain(path, line, f"a value of kind {kind} is not allowed", "quote it as text")

    inside = (*parents, node)
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _survey(item, f"{path}.{index}", item.start_mark.line + 1, inside, document, problems)
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            at = key.start_mark.line + 1
            where = f"{path}.{key.value}" if path else str(key.value)
            if key.tag == f"{_TAG}merge":
                for group in value.value if isinstance(value, SequenceNode) else [value]:
                    _survey(group, path, line, inside, document, problems)
            elif key.tag == f"{_TAG}str":
                _survey(value, where, at, inside, document, problems)
            else:
                complain(path, at, "the name of a field must be text", "quote it as text")
    return None
