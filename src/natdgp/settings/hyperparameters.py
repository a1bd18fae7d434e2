"""Determined's hyperparameters: constants, or ranges that a search draws from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from natdgp.settings.allowed import nearest
from natdgp.settings.problems import MISSING, Problem, SettingsError

_SEARCHED = ("int", "double", "log", "categorical")
_KINDS = ("const", *_SEARCHED)


def constant_hyperparameters(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The values of hyperparameters that are all constant, `{type: const, val: v}` being v.

    :raises SettingsError: if some are searched over, naming each.
    """
    constants, problems = split_hyperparameters(hyperparameters)
    if problems:
        raise SettingsError(problems)
    return constants


def split_hyperparameters(
    hyperparameters: Mapping[str, Any], path: str = "hyperparameters"
) -> tuple[dict[str, Any], list[Problem]]:
    """The constants among the hyperparameters, and a problem for each of the others."""
    constants: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in hyperparameters.items():
        where = f"{path}.{name}"
        if not isinstance(value, Mapping):
            constants[name] = value
        elif "type" not in value:
            constants[name], found = split_hyperparameters(value, where)
            problems += found
        elif value["type"] == "const" and "val" in value:
            constants[name] = value["val"]
        else:
            problems.append(_not_constant(where, value))
    return constants, problems


def _not_constant(path: str, value: Mapping[str, Any]) -> Problem:
    kind = value["type"]
    if kind in _SEARCHED:
        return Problem(
            path,
            dict(value),
            f"this file searches over {path}; `natdgp train` needs constants",
            f"give it a value: --set {path}=VALUE",
        )
    if kind == "const":
        return Problem(f"{path}.val", MISSING, "required; the constant", f"add `val:` to {path}")
    meant = nearest(kind, _KINDS)
    return Problem(
        f"{path}.type",
        kind,
        f"must be one of {', '.join(_KINDS)}",
        f"did you mean {meant}?" if meant else "write the value itself for a constant",
    )
