"""How problems are told; what pydantic finds, translated, is in cases.yaml."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from pydantic import ValidationError

from natdgp.fields import Frozen
from natdgp.settings.problems import Problem, SettingsError, problems_from


class Cat(Frozen):
    lives: int = 9


class Owner(Frozen):
    home: str | Cat


@pytest.mark.parametrize(
    ("home", "path", "message"),
    [
        (3, "owner.home", "must be a valid string, or be a group of fields"),
        ({"livs": 3}, "owner.home.livs", "there is no field livs; allowed here: lives"),
    ],
)
def test_of_a_union_the_variant_that_went_deepest_is_meant(
    home: object, path: str, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Owner.model_validate({"home": home})
    (problem,) = problems_from(caught.value, Owner, section="owner")
    assert (problem.path, problem.message) == (path, message)


def test_a_problem_reads_as_place_path_value_rule_code_and_remedy() -> None:
    problem = Problem("searcher.metric", "val_nlp", "must be val_nlpd", "did you?", "unknown-word")
    assert str(replace(problem, file="const.yaml", line=41)) == (
        "const.yaml:41: searcher.metric: received 'val_nlp'; must be val_nlpd [unknown-word]\n"
        "    did you?"
    )
    assert "received" not in str(replace(problem, received=None))
    assert len(str(replace(problem, received=list(range(10_000))))) < 200


def test_an_error_lists_all_its_problems_under_a_count_and_survives_a_process_boundary() -> None:
    one, two = Problem("a", 1, "wrong", "mend a"), Problem("b", 2, "wrong too", "mend b")
    error = SettingsError([one, two])
    assert str(error) == f"2 problems in the experiment's settings\n\n{one}\n\n{two}"
    assert str(SettingsError([one])).startswith("1 problem in")
    assert pickle.loads(pickle.dumps(error)).problems == error.problems
