"""Whatever is done to a file, reading it ends in an experiment or in a SettingsError."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natdgp.settings import Problem, SettingsError
from natdgp.settings.document import Document, apply_override, parse
from natdgp.settings.experiment import examine

FILES = sorted((Path(__file__).parents[3] / "experiments").glob("*/*.yaml"))
CONFIGS = {file: parse(file.read_text(encoding="utf-8")).values for file in FILES}
TEXT = """\
# Enough of a file to break.
name: &name small  # a comment
searcher:
  metric: val_nlpd
  max_length: {batches: 30}
labels:
  - one
  - *name
hyperparameters: {global_batch_size: 64}
"""

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
WORDS = st.sampled_from(
    ["type", "val", "const", "int", "name", "source", "flights", "csv", "layers", "epochs", "image"]
)
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
FRAGMENTS = st.text(max_size=3) | st.sampled_from(
    ["\t", ": ", "- ", "[", "}", "&a ", "*a ", "!!int ", "!b ", "<<: ", "? ", "|", "#", "'", "---"]
)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (group or list, key) in a value."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    return [pair for key in keys for pair in [(value, key), *nodes(value[key])]]


def edit(config: dict[str, Any], data: st.DataObject) -> None:
    group, key = data.draw(st.sampled_from(nodes(config)), label="node")
    action = data.draw(st.sampled_from(["delete", "rename", "retype"]), label="action")
    if action == "retype" or isinstance(group, list):
        group[key] = data.draw(VALUES, label="value")
        return
    value = group.pop(key)
    if action == "rename":
        group[data.draw(st.text(max_size=8) | WORDS, label="name")] = value


def assert_explained(problems: Iterable[Problem]) -> None:
    for problem in problems:
        assert problem.message
        assert problem.remedy
        assert str(problem)


@settings(max_examples=40, deadline=None)  # of a space, a thousand points are tried
@given(st.data())
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_edited_values_are_valid_or_explained(file: Path, data: st.DataObject) -> None:
    config = copy.deepcopy(CONFIGS[file])
    for _ in range(data.draw(st.integers(1, 3))):
        if nodes(config):
            edit(config, data)
    assert_explained(examine(config)[2])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(TEXT)), FRAGMENTS), min_size=1, max_size=4))
def test_edited_text_is_valid_or_explained(edits: list[tuple[int, str]]) -> None:
    text = TEXT
    for position, fragment in edits:
        text = text[:position] + fragment + text[position:]
    try:
        values = parse(text).values
    except SettingsError as error:
        assert_explained(error.problems)
    else:
        assert_explained(examine(values)[2] if isinstance(values, dict) else ())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20) | st.builds("{}={}".format, WORDS, FRAGMENTS | st.text(max_size=8)))
def test_any_override_is_valid_or_explained(override: str) -> None:
    try:
        document = apply_override(Document(CONFIGS[FILES[0]]), override)
    except SettingsError as error:
        assert_explained(error.problems)
    else:
        assert_explained(examine(document.values)[2])
