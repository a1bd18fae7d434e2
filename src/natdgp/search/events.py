"""What happens in a search from outside its searcher: all that has to be remembered of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from natdgp.search.decisions import Ending


@dataclass(frozen=True)
class Validated:
    """A trial was validated."""

    trial: int
    steps: int
    """Training steps behind it."""
    length: int
    """Trained so far, in the searcher's unit."""
    value: float
    """Of the searched metric."""


@dataclass(frozen=True)
class Ended:
    """A trial ended."""

    trial: int
    ending: Ending
    reason: str | None = None
    """Why, if it is invalid or failed."""


Event = Validated | Ended


def to_plain(event: Event) -> list[Any]:
    """An event as plain values, short enough to be kept by the thousand."""
    if isinstance(event, Validated):
        return ["validated", event.trial, event.steps, event.length, event.value]
    return ["ended", event.trial, event.ending.value, event.reason]


def from_plain(plain: list[Any]) -> Event:
    """The event that plain values stand for."""
    kind, *values = plain
    if kind == "validated":
        return Validated(*values)
    trial, ending, reason = values
    return Ended(trial, Ending(ending), reason)
