"""What a field's annotation allows, in words a user can act on."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
from pydantic import BaseModel
from pydantic.fields import FieldInfo


def allowed(annotation: Any, constraints: Sequence[Any] = ()) -> str:
    """Describe the values of an annotation: `a whole number above 0`."""
    variants = _variants(annotation, constraints)
    if sum(_is_group(variant) for variant, _ in variants) > 1:
        variants = [(dict, ())]
    return ", or ".join(dict.fromkeys(_describe(*variant) for variant in variants))


def choices(annotation: Any) -> tuple[str, ...]:
    """Every word that an annotation accepts literally."""
    return tuple(
        str(value)
        for variant, _ in _variants(annotation)
        if get_origin(variant) is Literal
        for value in get_args(variant)
    )


def groups(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The groups of fields among the variants of an annotation."""
    return tuple(variant for variant, _ in _variants(annotation) if _is_group(variant))


def item(annotation: Any) -> Any:
    """The annotation of the items of a list, or Any where none is a list."""
    lists = [variant for variant, _ in _variants(annotation) if get_origin(variant) in _LISTS]
    return get_args(lists[0])[0] if lists else Any


def nearest(name: object, candidates: Iterable[str]) -> str | None:
    """The candidate that a misspelt name most likely means, if any is near."""
    found = difflib.get_close_matches(str(name), list(candidates), n=1, cutoff=0.6)
    return found[0] if found else None


_LISTS = (tuple, list)
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "a group of fields",
    list: "a list",
    Any: "any value",
}
_BOUNDS = {
    bounds.Gt: ("gt", "above {}"),
    bounds.Ge: ("ge", "of at least {}"),
    bounds.Lt: ("lt", "below {}"),
    bounds.Le: ("le", "of at most {}"),
    bounds.MinLen: ("min_length", "of at least {}"),
}


def _variants(annotation: Any, constraints: Sequence[Any] = ()) -> list[tuple[Any, Sequence[Any]]]:
    """The members of a union, each with its constraints, without None."""
    if get_origin(annotation) is Annotated:
        inner, *extra = get_args(annotation)
        return _variants(inner, (*constraints, *extra))
    if get_origin(annotation) in (Union, types.UnionType):
        return [v for member in get_args(annotation) for v in _variants(member, constraints)]
    return [] if annotation is type(None) else [(annotation, constraints)]


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _describe(annotation: Any, constraints: Sequence[Any]) -> str:
    if get_origin(annotation) is Literal:
        words = choices(annotation)
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if _is_group(annotation):
        return f"a group of fields ({', '.join(annotation.model_fields)})"
    if get_origin(annotation) in _LISTS:
        return f"a list{_limits(constraints)} with each item {allowed(get_args(annotation)[0])}"
    base = get_origin(annotation) or annotation
    return _WORDS.get(base, "a value") + _limits(constraints)


def _limits(constraints: Sequence[Any]) -> str:
    flat = [
        one
        for constraint in constraints
        for one in (constraint.metadata if isinstance(constraint, FieldInfo) else [constraint])
    ]
    texts = [
        text.format(getattr(one, name))
        for one in flat
        for kind, (name, text) in _BOUNDS.items()
        if isinstance(one, kind)
    ]
    return "".join(f" {text}" for text in texts[:1]) + "".join(f" and {text}" for text in texts[1:])
