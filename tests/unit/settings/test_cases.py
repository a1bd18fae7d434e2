"""What is found in the files of cases.yaml, and the texts of messages.txt that tell it.

`python -m tests.unit.settings.test_cases`, from the repository's root, writes the texts again.
"""

from __future__ import annotations

import copy
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from natdgp.settings import Problem, SettingsError, read_search

TABLE: dict[str, Any] = YAML(typ="safe").load(Path(__file__).with_name("cases.yaml"))
CASES: list[dict[str, Any]] = TABLE["cases"]
MESSAGES = Path(__file__).with_name("messages.txt")


def text_of(case: dict[str, Any]) -> str:
    """The file of a case."""
    if "text" in case:
        return str(case["text"])
    config = copy.deepcopy(TABLE["base"])
    for path, value in case["set"].items():
        *groups, name = path.split(".")
        group = config
        for key in groups:
            group = group.setdefault(key, {})
        group[name] = value
        if value is None:
            del group[name]
    return json.dumps(config).replace("Infinity", ".inf")


def found_in(case: dict[str, Any], folder: Path) -> tuple[Problem, ...]:
    """What `natdgp check` finds in the file of a case, as if it had no place."""
    path = folder / "experiment.yaml"
    path.write_text(text_of(case), encoding="utf-8")
    try:
        read_search(path, local=False)
    except SettingsError as error:
        return tuple(replace(problem, file=None, line=None) for problem in error.problems)
    return ()


def messages(folder: Path) -> str:
    """All that is said about the cases."""
    told = []
    for case in CASES:
        if found := found_in(case, folder):
            told.append("\n".join([f"# {case['case']}", *map(str, found), ""]))
    return "\n".join(told)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_a_file_is_valid_or_has_the_problems_of_its_case(
    case: dict[str, Any], tmp_path: Path
) -> None:
    found = found_in(case, tmp_path)
    assert {problem.path: problem.code for problem in found} == case.get("finds", {})
    assert all(problem.message and problem.remedy for problem in found)


def test_the_texts_are_those_that_were_read_and_approved(tmp_path: Path) -> None:
    assert messages(tmp_path) == MESSAGES.read_text(encoding="utf-8")


def test_where_natdgp_and_determined_differ_it_is_said_why() -> None:
    for case in CASES:
        ours = "refused" if "finds" in case else "valid"
        assert (case.get("determined", ours) == ours) == ("why" not in case), case["case"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        MESSAGES.write_text(messages(Path(place)), encoding="utf-8")
