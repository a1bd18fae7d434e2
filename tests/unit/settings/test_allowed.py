from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from natdgp.settings.allowed import allowed, choices, nearest


class Pet(BaseModel):
    name: str
    age: int


class Plant(BaseModel):
    height: float


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (str, "text"),
        (bool, "true or false"),
        (Annotated[int, Field(gt=0)], "a whole number above 0"),
        (Annotated[int, Field(ge=0, lt=8)], "a whole number of at least 0 and below 8"),
        (
            Annotated[Annotated[float, Field(gt=0)], Field(le=1)],
            "a number above 0 and of at most 1",
        ),
        (Annotated[int, Field(gt=0)] | None, "a whole number above 0"),
        (Literal["all", "last"], "one of all, last"),
        (Literal["flights"], "flights"),
        (Literal["all"] | tuple[int, ...], "all, or a list with each item a whole number"),
        (
            Annotated[tuple[str, ...], Field(min_length=1)],
            "a list of at least 1 with each item text",
        ),
        (Pet, "a group of fields (name, age)"),
        (str | Pet, "text, or a group of fields (name, age)"),
        (Pet | Plant, "a group of fields"),
        (dict[str, int], "a group of fields"),
    ],
)
def test_an_annotation_reads_as_words(annotation: Any, words: str) -> None:
    assert allowed(annotation) == words


def test_choices_are_the_literal_words_of_all_variants() -> None:
    assert choices(Literal["all", "last"] | tuple[int, ...] | None) == ("all", "last")


def test_nearest_finds_a_misspelt_name_and_nothing_far() -> None:
    assert nearest("layrs", ["layers", "kernel"]) == "layers"
    assert nearest("xyz", ["layers", "kernel"]) is None
