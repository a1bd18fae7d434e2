"""Modules that are slow to import, imported when they are first used.

A file may so hold settings beside the TensorFlow code that they set, and be read without it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


class LazyModule(ModuleType):
    """Stands for a module, which is imported at the first look at one of its attributes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def lazy(name: str) -> Any:
    """A module by its full name, imported when first used.

    Type checkers see nothing of it; give them the real import under `if TYPE_CHECKING`.
    """
    return LazyModule(name)


def check_shapes(*specs: str) -> Callable[[Function], Function]:
    """:func:`check_shapes.check_shapes`, which imports TensorFlow, applied at the first call."""

    def decorate(function: Function) -> Function:
        @functools.cache
        def checked() -> Function:
            decorate_now = importlib.import_module("check_shapes").check_shapes(*specs)
            decorated: Function = decorate_now(function)
            return decorated

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return checked()(*args, **kwargs)

        return cast(Function, call)

    return decorate
