from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from natdgp.settings import Problem, SettingsError
from natdgp.settings.document import apply_override, parse, read_document

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
LAYERS = {"type": "int", "minval": 1}
MODEL = "model:\n  layers: {type: int, minval: 1}\n  dtype: float64\n"


def refused(error: pytest.ExceptionInfo[SettingsError]) -> Problem:
    (problem,) = error.value.problems
    return problem


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
    located = parse(TEXT, "a.yaml").locate(Problem(path, None, "wrong", "mend it"))
    assert (located.file, located.line) == ("a.yaml", line)


def test_anchors_and_merged_groups_resolve() -> None:
    document = parse("base: &base {a: 1}\nuse:\n  <<: *base\n  b: 2\nalso: *base\n", "a.yaml")
    assert document.values == {"base": {"a": 1}, "use": {"a": 1, "b": 2}, "also": {"a": 1}}
    assert document.places["use.b"] == ("a.yaml", 4)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1\n", 3),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 1\nb: 2\na: 3\n", 3),
        ("a: *nowhere\n", 1),
        ("a: !!int x\n", None),
        ("a:\n  b: !!python/object/apply:os.system ['x']\n", 2),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(text: str, line: int | None) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text, "a.yaml")
    problem = refused(caught)
    assert (problem.file, problem.line, problem.code) == ("a.yaml", line, "not-yaml")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "unreadable-file"),
        (b"name: \xff\n", "unreadable-file"),
        (b"- 1\n", "no-fields"),
        (b"", "no-fields"),
    ],
)
def test_a_file_that_is_no_group_of_fields_is_refused(
    tmp_path: Path, content: bytes | None, code: str
) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_document(path)
    assert (refused(caught).file, refused(caught).code) == (str(path), code)


@pytest.mark.parametrize(
    ("override", "group", "value"),
    [
        ("model.layers=3", "model", {"layers": 3, "dtype": "float64"}),
        ("model={layers: 1}", "model", {"layers": 1}),
        ("model.dtype=", "model", {"layers": LAYERS, "dtype": None}),
        ("model.dtype.x=[1]", "model", {"layers": LAYERS, "dtype": {"x": [1]}}),
        ("environment.image=a=b", "environment", {"image": "a=b"}),
    ],
)
def test_an_override_replaces_what_stood_at_its_path_or_makes_groups(
    override: str, group: str, value: Any
) -> None:
    document = parse(MODEL)
    assert apply_override(document, override).values[group] == value
    assert document.values == parse(MODEL).values, "the document stays as it was"


def test_a_problem_with_an_override_names_it_in_place_of_file_and_line() -> None:
    document = apply_override(parse(MODEL, "a.yaml"), "model.layers=0")
    problems = [Problem(f"model.{name}", 0, "", "") for name in ("layers", "layers.a", "dtype")]
    places = [(located.file, located.line) for located in map(document.locate, problems)]
    assert places == [("--set model.layers=0", None)] * 2 + [("a.yaml", 3)]


@pytest.mark.parametrize(
    ("override", "path", "code"),
    [
        ("layers", "", "not-an-override"),
        ("=3", "", "not-an-override"),
        ("a..b=3", "", "not-an-override"),
        ("name=[1", "name", "not-yaml"),
    ],
)
def test_a_malformed_override_is_refused(override: str, path: str, code: str) -> None:
    with pytest.raises(SettingsError) as caught:
        apply_override(parse(MODEL), override)
    problem = refused(caught)
    assert (problem.path, problem.file, problem.code) == (path, f"--set {override}", code)
