"""The same examples in every run, however slow the machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("natgrad", deadline=None, derandomize=True, database=None)
settings.load_profile("natgrad")
