"""Whatever is done to a file, reading it ends in an experiment or in a SettingsError."""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natdgp.run.run_folder import FolderError
from natdgp.run.run_session import new_run
from natdgp.settings import Problem, SettingsError, read_experiment, validate
from natdgp.settings.document import Document, parse
from natdgp.settings.overrides import apply_override
from tests.conftest import REPOSITORY

FILES = sorted((Path(__file__).parents[3] / "experiments").glob("*/*.yaml"))
TEXTS = {file: file.read_text(encoding="utf-8") for file in FILES}
CONFIGS = {file: parse(text).values for file, text in TEXTS.items()}
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
FRAGMENTS = st.sampled_from(
    [
        "\t",
        ": ",
        "- ",
        "[",
        "}",
        "&a ",
        "*a ",
        "!!int ",
        "!b ",
        "<<: ",
        "? ",
        "|",
        "#",
        "'",
        "---\n",
    ]
) | st.text(max_size=3)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (group or list, key) in a value."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    return [pair for key in keys for pair in [(value, key), *nodes(value[key])]]


def deface(config: dict[str, Any], data: st.DataObject) -> None:
    group, key = data.draw(st.sampled_from(nodes(config)), label="node")
    action = data.draw(st.sampled_from(["delete", "rename", "retype"]), label="action")
    if action == "retype" or isinstance(group, list):
        group[key] = data.draw(VALUES, label="value")
        return
    value = group.pop(key)
    if action == "rename":
        group[data.draw(st.text(max_size=8) | WORDS, label="name")] = value


TRAINABLE = {
    "name": "small",
    "description": "",
    "entrypoint": "python3 -m determined.launch.horovod --trial trials.deep_gp:DeepGPTrial",
    "environment": {"image": "determinedai/tensorflow-ngc:0.38.1"},
    "searcher": {
        "name": "single",
        "metric": "val_nlpd",
        "smaller_is_better": True,
        "max_length": {"batches": 30},
    },
    "data": {"source": "csv", "path": "table.csv", "target": ["y"], "features": ["x"]},
    "hyperparameters": {"global_batch_size": 64},
}
ODD = st.sampled_from(
    [
        "..x:Nope",
        ".",
        "..",
        "~",
        "/",
        "/dev/null",
        "x" * 300,
        "é" * 200,
        "a/" * 3000,
        "\0",
        "\ud800",
    ]
) | st.text(max_size=8)


def assert_explained(problems: Iterable[Problem]) -> None:
    for problem in problems:
        assert problem.message
        assert problem.remedy
        assert str(problem)


@settings(max_examples=100, deadline=None)
@given(st.data())
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_defaced_values_are_valid_or_explained(file: Path, data: st.DataObject) -> None:
    config = copy.deepcopy(CONFIGS[file])
    for _ in range(data.draw(st.integers(1, 3))):
        if nodes(config):
            deface(config, data)
    assert_explained(validate(config))


def _oddly(text: str, odd: str) -> str:
    """A text of an experiment with something odd in it."""
    head, mark, _ = text.partition("--trial ")
    return f"{head}{mark}{odd.replace(' ', '')}:DeepGPTrial" if mark else odd


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([pair for pair in nodes(TRAINABLE) if isinstance(pair[0][pair[1]], str)]), ODD
)
def test_what_is_valid_makes_a_run_or_is_refused_in_words(node: tuple[Any, Any], odd: str) -> None:
    group, key = node
    before, group[key] = group[key], _oddly(group[key], odd)
    try:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            file = Path("experiment.yaml")
            file.write_text(json.dumps(TRAINABLE), encoding="utf-8")
            experiment = read_experiment(file)
            with contextlib.suppress(FolderError):
                run = new_run(experiment, REPOSITORY, None)
                assert read_experiment(run.config).settings.model == experiment.settings.model
    except SettingsError as error:
        assert_explained(error.problems)
    finally:
        group[key] = before


@settings(max_examples=10, deadline=None)  # a whole file takes a while to parse
@given(st.lists(st.tuples(st.integers(0, 10_000), FRAGMENTS), min_size=1, max_size=4))
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_defaced_file_is_valid_or_explained(file: Path, edits: list[tuple[int, str]]) -> None:
    text = TEXTS[file]
    for position, fragment in edits:
        text = text[: position % len(text)] + fragment + text[position % len(text) :]
    assert_explained_if_read(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(TEXT)), FRAGMENTS), min_size=1, max_size=4))
def test_defaced_text_is_valid_or_explained(edits: list[tuple[int, str]]) -> None:
    text = TEXT
    for position, fragment in edits:
        text = text[:position] + fragment + text[position:]
    assert_explained_if_read(text)


def assert_explained_if_read(text: str) -> None:
    try:
        values = parse(text).values
    except SettingsError as error:
        assert_explained(error.problems)
    else:
        assert_explained(validate(values) if isinstance(values, dict) else ())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20) | st.builds("{}={}".format, WORDS, FRAGMENTS | st.text(max_size=8)))
def test_any_override_is_valid_or_explained(override: str) -> None:
    try:
        document = apply_override(Document(CONFIGS[FILES[0]]), override)
    except SettingsError as error:
        assert_explained(error.problems)
    else:
        assert_explained(validate(document.values))
