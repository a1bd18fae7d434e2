"""The committed searches are valid, and what they say of their searchers is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from natdgp.settings import read_search
from natdgp.settings.document import parse
from natdgp.settings.searchers import (
    AdaptiveSearcher,
    GridSearcher,
    RandomSearcher,
    SingleSearcher,
)

FOLDER = Path(__file__).parents[3] / "experiments" / "flights"
SEARCHERS: dict[str, type[AdaptiveSearcher | RandomSearcher | GridSearcher]] = {
    "adaptive.yaml": AdaptiveSearcher,
    "random.yaml": RandomSearcher,
    "grid.yaml": GridSearcher,
}
OF_EARLIER_VERSIONS = {"stop_once"}
OWN = [
    (file, name)
    for file, searcher in SEARCHERS.items()
    for name in sorted(searcher.model_fields.keys() - SingleSearcher.model_fields.keys())
    if name not in OF_EARLIER_VERSIONS
]


def _comment_above(file: str, name: str) -> str:
    lines = (FOLDER / file).read_text(encoding="utf-8").splitlines()
    (at,) = (i for i, line in enumerate(lines) if re.match(rf"  (# )?{name}:", line))
    above: list[str] = []
    while lines[at - 1].strip().startswith("#"):
        at -= 1
        above.insert(0, lines[at].strip().lstrip("# "))
    return " ".join(above)


@pytest.mark.parametrize("file", SEARCHERS)
def test_it_is_valid_and_searches_on_predictions(file: str) -> None:
    search = read_search(FOLDER / file)
    assert isinstance(search.searcher, SEARCHERS[file])
    assert search.searcher.metric == "val_nlpd"
    assert search.space.searched


@pytest.mark.parametrize(("file", "name"), OWN, ids=str)
def test_every_field_of_its_searcher_is_explained_with_its_default(file: str, name: str) -> None:
    comment, field = _comment_above(file, name), SEARCHERS[file].model_fields[name]
    assert "(type: " in comment
    if field.is_required():
        assert "required)" in comment
    elif field.default:
        stated = re.findall(r"default: ([^)]+)\)", comment)[
            -1
        ]  # a field above may be commented out
        assert parse(stated).values == field.default


@pytest.mark.parametrize("file", SEARCHERS)
def test_every_field_has_a_comment(file: str) -> None:
    lines = (FOLDER / file).read_text(encoding="utf-8").splitlines()
    fields = {i for i, line in enumerate(lines) if re.match(r" *(?!type:|vals:)\w+:", line)}
    assert len(fields) > 30
    assert [lines[i] for i in fields if not lines[i - 1].strip().startswith("#")] == []


def test_the_adaptive_search_varies_model_steps_and_batches() -> None:
    searched = read_search(FOLDER / "adaptive.yaml").space.searched
    assert {name.partition(".")[2] for name in searched} == {
        "global_batch_size",
        "model.layers",
        "model.inducing_points",
        "model.kernel.name",
        "natural_gradient.gamma",
        "natural_gradient.ramp_steps",
        "adam.learning_rate",
    }


def test_the_grid_has_as_many_points_as_its_title_says() -> None:
    assert read_search(FOLDER / "grid.yaml").space.grid_size == 12
