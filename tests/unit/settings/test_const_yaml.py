"""The committed experiment is valid, and its comments are complete and true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from natdgp.data.data_settings import ArraysSettings
from natdgp.settings import read_experiment
from natdgp.settings.document import parse
from natdgp.settings.problems import groups
from natdgp.settings.schema import Settings
from natdgp.training.training_settings import SelectionMetric

CONST = Path(__file__).parents[3] / "experiments" / "flights" / "const.yaml"
LINES = CONST.read_text(encoding="utf-8").splitlines()


def fields(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str, FieldInfo]]:
    """Every field of every group, from a model down."""
    for name, field in model.model_fields.items():
        yield model, name, field
        for group in groups(field.annotation):
            if group is not ArraysSettings:  # which no file has
                yield from fields(group)


def comments_above(name: str) -> list[str]:
    """The comment above each line that sets a field of this name, commented out or not."""
    found = []
    for index, line in enumerate(LINES):
        if re.match(rf"\s*(# +)?{name}:( |$)", line):
            above: list[str] = []
            for earlier in reversed(LINES[:index]):
                if not earlier.strip().startswith("#"):
                    break
                above.insert(0, earlier.strip().lstrip("# "))
            found.append(" ".join(above))
    return found


FIELDS = [
    pytest.param(model, name, field, id=f"{model.__name__}.{name}")
    for model, name, field in fields(Settings)
]


def test_it_is_valid() -> None:
    experiment = read_experiment(CONST)
    assert experiment.config["searcher"]["metric"] == "val_nlpd"
    assert experiment.settings.model.layers == 2


@pytest.mark.parametrize(("model", "name", "field"), FIELDS)
def test_every_setting_is_in_it_under_a_comment(
    model: type[BaseModel], name: str, field: FieldInfo
) -> None:
    comments = comments_above(name)
    assert any(comments)
    if not groups(field.annotation):
        assert any("type:" in comment for comment in comments)


@pytest.mark.parametrize(("model", "name", "field"), FIELDS)
def test_the_default_it_states_is_the_default(
    model: type[BaseModel], name: str, field: FieldInfo
) -> None:
    default: Any = field.get_default()
    if groups(field.annotation) or default is None:
        return
    if field.is_required():
        assert any("required" in comment for comment in comments_above(name))
        return
    stated = [
        parse(word).values
        for comment in comments_above(name)
        for word in re.findall(r"default(?: of the group)?: ([^\s,;)]+)", comment)
    ]
    assert default in stated


def test_its_optional_groups_are_valid_when_taken_in(tmp_path: Path) -> None:
    uncommented = []
    inside = False
    for line in LINES:
        inside = bool(re.match(r"  # (early_stopping|reduce_lr_on_plateau):", line)) or (
            inside and line.startswith("  #   ")
        )
        uncommented.append(line.replace("  # ", "  ", 1) if inside else line)
    text = "\n".join(uncommented).replace("name: cosine", "name: constant")
    text = re.sub(r"\n      (decay_steps|alpha):.*", "", text)
    path = tmp_path / "taken_in.yaml"
    path.write_text(text, encoding="utf-8")
    settings = read_experiment(path).settings
    assert settings.early_stopping is not None
    assert settings.reduce_lr_on_plateau is not None
    assert settings.reduce_lr_on_plateau == type(settings.reduce_lr_on_plateau)()
    assert settings.early_stopping == type(settings.early_stopping)()


def test_the_metrics_it_lists_are_those_that_a_searcher_takes() -> None:
    (comment,) = comments_above("metric")
    assert set(re.findall(r"val_\w+", comment)) == set(get_args(SelectionMetric))
