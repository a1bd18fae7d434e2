from __future__ import annotations

from pathlib import Path

import pytest

from natdgp.settings import MISSING, Problem, SettingsError
from natdgp.settings.document import parse, read_document

TEXT = """\
# A comment, and a blank line.

name: a
searcher:
  max_length: {batches: 3,
    epochs: 1}
labels:
  - one
  - two
"""


def test_values_are_plain_and_follow_yaml_1_2() -> None:
    values = parse("a: 1e-5\nb: yes\nc: 1_000\nd: null\ne: [x, 'y']\nf: {g: true}\n").values
    assert values == {
        "a": 1e-5,
        "b": "yes",
        "c": 1000,
        "d": None,
        "e": ["x", "y"],
        "f": {"g": True},
    }
    kinds = [type(value) for value in values.values()]
    assert kinds == [float, str, int, type(None), list, dict]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("name", 3),
        ("searcher", 4),
        ("searcher.max_length.batches", 5),
        ("searcher.max_length.epochs", 6),
        ("labels.1", 9),
        ("searcher.metric", 4),  # not there: its group's
        ("entrypoint", None),  # not there, nor its group
    ],
)
def test_a_problem_is_located_at_its_field_or_at_the_group_that_lacks_it(
    path: str, line: int | None
) -> None:
    located = parse(TEXT, "a.yaml").locate(Problem(path, MISSING, "wrong", "mend it"))
    assert (located.file, located.line) == ("a.yaml", line)


def test_anchors_and_merged_groups_resolve() -> None:
    document = parse("base: &base {a: 1}\nuse:\n  <<: *base\n  b: 2\nalso: *base\n", "a.yaml")
    assert document.values == {"base": {"a": 1}, "use": {"a": 1, "b": 2}, "also": {"a": 1}}
    assert document.places["use.b"] == ("a.yaml", 4)


@pytest.mark.parametrize(
    ("text", "line", "path", "fragment"),
    [
        ("a: 1\nb: [1\n", 3, "", "not valid YAML: expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", 2, "", "not valid YAML: found character '\\t'"),
        ("a: 1\nb: 2\na: 3\n", 3, "", 'found duplicate key "a"'),
        ("a: 1\n---\nb: 2\n", 2, "", "another document"),
        ("a: *nowhere\n", 1, "", "undefined alias"),
        ("a: !!int x\n", None, "", "not valid YAML"),
        ("a: !!int\n", None, "", "not valid YAML"),
        ("a: !!bool x\n", None, "", "not valid YAML"),
        ("a: \x00\n", None, "", "not valid YAML"),
        ("a:\n  b: !!python/object/apply:os.system ['x']\n", 2, "a.b", "os.system is not allowed"),
        ("a:\n  b: !mine 3\n", 2, "a.b", "kind !mine is not allowed"),
        ("a: 1\nb: 2020-01-01\n", 2, "b", "kind timestamp is not allowed"),
        ("a: 1\nb: {3: 4}\n", 2, "b", "the name of a field must be text"),
        ("a: 1\n? [b]\n: 4\n", 2, "", "the name of a field must be text"),
        ("a: &a\n  - b: *a\n", 2, "a.0.b", "alias refers to the group it lies in"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(
    text: str, line: int | None, path: str, fragment: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text, "a.yaml")
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.path) == ("a.yaml", line, path)
    assert fragment in problem.message
    assert problem.remedy


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (None, "there is no such file"),
        (b"- 1\n", "received [1]; an experiment file must be a group of fields"),
        (b"", "received None; an experiment file must be a group of fields"),
        (b"name: \xff\n", "not UTF-8 text (byte 6)"),
    ],
)
def test_a_file_that_is_no_group_of_fields_is_refused(
    tmp_path: Path, content: bytes | None, fragment: str
) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_document(path)
    assert f"{path}: {fragment}" in str(caught.value)


NINE = ", ".join(["*a{0}"] * 9)
BOMB = "".join(f"a{i}: &a{i} [{NINE.format(i - 1)}]\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 5000, "more than 50 groups and lists lie within each other"),
        ("a: " + "[" * 51 + "]" * 51, "more than 50 groups and lists lie within each other"),
        ("".join(f"{' ' * i}k:\n" for i in range(3000)), "more than 50 groups and lists"),
        ("a0: &a0 [1, 2]\n" + BOMB, "there are more than 20,000 values, aliases written out"),
    ],
    ids=["lists", "lists that end", "groups", "aliases"],
)
def test_text_that_only_means_harm_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(text, "file")


def test_a_deep_file_is_read() -> None:
    assert parse("a: " + "[" * 49 + "]" * 49).values


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="unreadable"):
        read_document(tmp_path)
