"""What the groups of fields around the settings have in common."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from natdgp.fields import Frozen


class Section(Frozen):
    """A group of fields that the master knows; null means its default there."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {name: value for name, value in given.items() if value is not None}
        return given
