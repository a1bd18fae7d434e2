from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from natdgp.fields import Frozen, PositiveInt, Refused
from natdgp.settings.problems import Problem, SettingsError, nearest, problems_from


class Cat(Frozen):
    kind: Literal["cat"]
    lives: PositiveInt = 9


class Dog(Frozen):
    kind: Literal["dog"]
    tricks: tuple[PositiveInt, ...] | Literal["all", "none"] = "all"


class Owner(Frozen):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    age: PositiveInt
    home: str | Cat | None = None

    @model_validator(mode="after")
    def _is_old_enough(self) -> Owner:
        if self.age < 3:
            raise Refused("too-young", "is too young for a pet", "wait")
        if self.age > 300:
            raise ValueError("is too old")
        return self


CAT = {"kind": "cat"}


def problems(**given: Any) -> list[Problem]:
    with pytest.raises(ValidationError) as caught:
        Owner.model_validate(given)
    return list(problems_from(caught.value, Owner, given, section="owner"))


@pytest.mark.parametrize(
    ("given", "path", "code", "message", "remedy"),
    [
        (
            {"pet": CAT, "age": 0},
            "owner.age",
            "out-of-range",
            "must be greater than 0",
            "set another value",
        ),
        ({"pet": CAT}, "owner.age", "missing-field", "required", "add `age:` to owner"),
        (
            {"pet": {"lives": 3}, "age": 9},
            "owner.pet.kind",
            "missing-field",
            "required; one of cat, dog",
            "add `kind:` to owner.pet",
        ),
        (
            {"pet": {"kind": "cta"}, "age": 9},
            "owner.pet.kind",
            "unknown-word",
            "must be one of cat, dog",
            "did you mean cat?",
        ),
        (
            {"pet": {**CAT, "livs": 3}, "age": 9},
            "owner.pet.livs",
            "unknown-field",
            "there is no field livs; allowed here: kind, lives",
            "did you mean lives?",
        ),
        (
            {"pet": {**CAT, "lives": -1}, "age": 9},
            "owner.pet.lives",
            "out-of-range",
            "must be greater than 0",
            "set another value, or remove the field for the default, 9",
        ),
        (
            {"pet": {"kind": "dog", "tricks": "al"}, "age": 9},
            "owner.pet.tricks",
            "wrong-type",
            "must be a list, or be one of all, none",
            "did you mean all?",
        ),
        (  # of a union, the variant that went deepest is meant
            {"pet": {"kind": "dog", "tricks": [1, 0]}, "age": 9},
            "owner.pet.tricks.1",
            "out-of-range",
            "must be greater than 0",
            "set another value",
        ),
        (
            {"pet": CAT, "age": 9, "home": 3},
            "owner.home",
            "wrong-type",
            "must be a valid string, or be a group of fields",
            "set another value, or remove the field for the default",
        ),
        ({"pet": CAT, "age": 2}, "owner", "too-young", "is too young for a pet", "wait"),
        ({"pet": CAT, "age": 999}, "owner", "inconsistent", "is too old", "set another value"),
    ],
)
def test_an_error_is_translated_into_path_code_message_and_remedy(
    given: dict[str, Any], path: str, code: str, message: str, remedy: str
) -> None:
    (problem,) = problems(**given)
    assert (problem.path, problem.code) == (path, code)
    assert (problem.message, problem.remedy) == (message, remedy)


def test_a_problem_reads_as_place_path_value_rule_code_and_remedy() -> None:
    problem = Problem("searcher.metric", "val_nlp", "must be val_nlpd", "did you?", "unknown-word")
    assert str(replace(problem, file="const.yaml", line=41)) == (
        "const.yaml:41: searcher.metric: received 'val_nlp'; must be val_nlpd [unknown-word]\n"
        "    did you?"
    )
    assert "received" not in str(replace(problem, received=None))
    assert len(str(replace(problem, received=list(range(10_000))))) < 200


def test_an_error_lists_all_its_problems_under_a_count() -> None:
    one, two = Problem("a", 1, "wrong", "mend a"), Problem("b", 2, "wrong too", "mend b")
    text = str(SettingsError([one, two]))
    assert text.startswith("2 problems in the experiment's settings")
    assert str(one) in text
    assert str(two) in text
    assert str(SettingsError([one])).startswith("1 problem in")


def test_an_error_survives_a_process_boundary() -> None:
    error = SettingsError.single("a", None, "required", "add it", "missing-field")
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_nearest_finds_a_misspelt_name_and_nothing_far() -> None:
    assert nearest("layrs", ["layers", "kernel"]) == "layers"
    assert nearest("xyz", ["layers", "kernel"]) is None
