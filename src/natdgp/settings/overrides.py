"""`--set path=value`: one field of an experiment file, given on the command line."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from natdgp.settings.document import Document, parse
from natdgp.settings.problems import MISSING, Problem, SettingsError


def apply_override(document: Document, override: str) -> Document:
    """The document with one field set, as if it stood so in the file.

    Groups on the way are made where there are none, and whatever stood at the path is replaced.
    A path that no field has is found out when the document is validated, as in a file.

    :param override: `path=value`, such as `hyperparameters.model.layers=3`; the value is YAML.
    :raises SettingsError: for an override that is not `path=value`, or a value that is not YAML.
    """
    origin = f"--set {override}"
    path, equals, text = override.partition("=")
    names = path.strip().split(".")
    if not equals or not all(names):
        problem = Problem(
            "",
            MISSING,
            "must be path=value",
            "write it as in --set hyperparameters.model.layers=3",
            file=origin,
        )
        raise SettingsError([problem])
    try:
        value = parse(text).values
    except SettingsError as error:
        located = [replace(p, path=path, file=origin, line=None) for p in error.problems]
        raise SettingsError(located) from None

    values = copy.deepcopy(document.values)
    group: dict[str, Any] = values
    for name in names[:-1]:
        if not isinstance(group.get(name), dict):
            group[name] = {}
        group = group[name]
    group[names[-1]] = value

    path = ".".join(names)
    places = {
        where: place
        for where, place in document.places.items()
        if not f"{where}.".startswith(f"{path}.")
    }
    return Document(values, document.file, {**places, path: (origin, None)})
