"""The committed experiments are valid, and their comments are complete and true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from natdgp.data.data_settings import ArraysSettings
from natdgp.settings import read_experiment, read_search
from natdgp.settings.document import parse
from natdgp.settings.problems import groups
from natdgp.settings.schema import Settings
from natdgp.settings.searchers import (
    AdaptiveSearcher,
    GridSearcher,
    RandomSearcher,
    SingleSearcher,
)
from natdgp.training.training_settings import SelectionMetric

FOLDER = Path(__file__).parents[3] / "experiments" / "flights"
LINES = {file.name: file.read_text(encoding="utf-8").splitlines() for file in FOLDER.glob("*.yaml")}
SEARCHERS: dict[str, type[AdaptiveSearcher | RandomSearcher | GridSearcher]] = {
    "adaptive.yaml": AdaptiveSearcher,
    "random.yaml": RandomSearcher,
    "grid.yaml": GridSearcher,
}


def fields(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str, FieldInfo]]:
    """Every field of every group, from a model down."""
    for name, field in model.model_fields.items():
        yield model, name, field
        for group in groups(field.annotation):
            if group is not ArraysSettings:  # which no file has
                yield from fields(group)


def comments_above(file: str, name: str) -> list[str]:
    """The comment above each line that sets a field of this name, commented out or not."""
    found = []
    for index, line in enumerate(LINES[file]):
        if re.match(rf"\s*(# +)?{name}:( |$)", line):
            above: list[str] = []
            for earlier in reversed(LINES[file][:index]):
                if not earlier.strip().startswith("#"):
                    break
                above.insert(0, earlier.strip().lstrip("# "))
            found.append(" ".join(above))
    return found


SETTINGS = [
    pytest.param("const.yaml", name, field, id=f"{model.__name__}.{name}")
    for model, name, field in fields(Settings)
]
OF_SEARCHERS = [
    pytest.param(file, name, field, id=f"{file}.{name}")
    for file, searcher in SEARCHERS.items()
    for name, field in searcher.model_fields.items()
    if name not in SingleSearcher.model_fields and name != "stop_once"  # of earlier versions
]


@pytest.mark.parametrize(("file", "name", "field"), SETTINGS + OF_SEARCHERS)
def test_every_field_is_explained_with_its_type_and_default(
    file: str, name: str, field: FieldInfo
) -> None:
    comments = comments_above(file, name)
    assert any(comments)
    if groups(field.annotation):
        return
    assert any("type:" in comment for comment in comments)
    if field.is_required():
        assert any("required" in comment for comment in comments)
    elif (default := field.get_default()) not in (None, ()):
        stated = re.findall(r"default(?: of the group)?: (\[[^]]*\]|[^\s,;)]+)", " ".join(comments))
        default = list(default) if isinstance(default, tuple) else default
        assert default in [parse(word).values for word in stated]


@pytest.mark.parametrize("file", SEARCHERS)
def test_every_field_of_a_search_has_a_comment(file: str) -> None:
    lines = LINES[file]
    at = {i for i, line in enumerate(lines) if re.match(r" *(?!type:|vals:)\w+:", line)}
    assert len(at) > 30
    assert [lines[i] for i in at if not lines[i - 1].strip().startswith("#")] == []


def test_the_optional_groups_are_valid_when_taken_in(tmp_path: Path) -> None:
    uncommented = []
    inside = False
    for line in LINES["const.yaml"]:
        inside = bool(re.match(r"  # (early_stopping|reduce_lr_on_plateau):", line)) or (
            inside and line.startswith("  #   ")
        )
        uncommented.append(line.replace("  # ", "  ", 1) if inside else line)
    text = "\n".join(uncommented).replace("name: cosine", "name: constant")
    text = re.sub(r"\n      (decay_steps|alpha):.*", "", text)
    path = tmp_path / "taken_in.yaml"
    path.write_text(text, encoding="utf-8")
    settings = read_experiment(path).settings
    for group in (settings.early_stopping, settings.reduce_lr_on_plateau):
        assert group is not None
        assert group == type(group)()


def test_the_metrics_listed_are_those_that_a_searcher_takes() -> None:
    (comment,) = comments_above("const.yaml", "metric")
    assert set(re.findall(r"val_\w+", comment)) == set(get_args(SelectionMetric))


@pytest.mark.parametrize("file", SEARCHERS)
def test_a_search_is_valid_and_searches_on_predictions(file: str) -> None:
    search = read_search(FOLDER / file)
    assert isinstance(search.searcher, SEARCHERS[file])
    assert search.searcher.metric == "val_nlpd"
    assert search.space.domains


def test_the_adaptive_search_varies_model_steps_and_batches() -> None:
    assert {".".join(path) for path in read_search(FOLDER / "adaptive.yaml").space.domains} == {
        "global_batch_size",
        "model.layers",
        "model.inducing_points",
        "model.kernel.name",
        "natural_gradient.gamma",
        "natural_gradient.ramp_steps",
        "adam.learning_rate",
    }


def test_the_grid_has_as_many_points_as_its_title_says() -> None:
    assert len(read_search(FOLDER / "grid.yaml").space.grid) == 12
