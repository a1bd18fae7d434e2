"""The corpus of broken.yaml: every broken file is refused with the words expected."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from natdgp.settings import SettingsError, read_search
from tests.conftest import REPOSITORY

SAFE = YAML(typ="safe", pure=True)
CASES = SAFE.load(Path(__file__).with_name("broken.yaml"))
CONST = SAFE.load(REPOSITORY / "experiments" / "flights" / "const.yaml")


def _put(config: dict[str, Any], path: str, value: Any) -> None:
    *groups, name = path.split(".")
    for group in groups:
        config = config.setdefault(group, {})
    if value is None:
        config.pop(name, None)
    else:
        config[name] = value


def _write(case: dict[str, Any], path: Path) -> None:
    if "text" in case:
        path.write_text(case["text"], encoding="utf-8")
        return
    config = copy.deepcopy(CONST)
    for field, value in case["change"].items():
        _put(config, field, value)
    with path.open("w", encoding="utf-8") as file:
        SAFE.dump(config, file)


def test_there_are_enough_of_them_and_each_has_a_name() -> None:
    assert len(CASES) >= 60
    assert len({case["case"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_a_broken_file_is_refused_in_words(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    _write(case, path)
    with pytest.raises(SettingsError) as raised:
        read_search(path, local=False)  # as `natdgp check` does
    told = [
        f"{problem.path}{': ' if problem.path else ''}{problem.message}; {problem.remedy}"
        for problem in raised.value.problems
    ]
    assert len(told) == len(case["says"]), told
    for text, expected in zip(told, case["says"], strict=True):
        assert text.startswith(expected), text
    assert all(problem.file == str(path) for problem in raised.value.problems)
