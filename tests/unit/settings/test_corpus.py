"""Verdicts on a corpus of configurations, beside those of Determined's own schema engine."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from natdgp.settings import validate

CORPUS: dict[str, Any] = YAML(typ="safe", pure=True).load(Path(__file__).with_name("corpus.yaml"))


def _config(case: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(CORPUS["base"])
    for path, value in case["changes"].items():
        *groups, name = path.split(".")
        group = config
        for key in groups:
            group = group.setdefault(key, {})
        if value == "__delete__":
            del group[name]
        else:
            group[name] = value
    return config


@pytest.mark.parametrize("case", CORPUS["cases"], ids=lambda case: case["name"])
def test_a_configuration_is_judged_as_recorded(case: dict[str, Any]) -> None:
    problems = validate(_config(case))
    assert (problems[0].path if problems else "valid") == case["natdgp"]


@pytest.mark.parametrize("case", CORPUS["cases"], ids=lambda case: case["name"])
def test_where_the_judges_differ_it_is_said_why(case: dict[str, Any]) -> None:
    agree = (case["natdgp"] == "valid") == (case["determined"] == "valid")
    assert agree == ("why" not in case)
