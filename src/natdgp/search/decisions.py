"""What a searcher is told and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Verdict(Enum):
    """What a trial does after a validation."""

    GO_ON = "go on"
    STOP = "stop"
    """It is not among the best at its rung."""
    TOP = "top"
    """It has reached the last rung: there is no more to do."""


class Ending(Enum):
    """How a trial ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    INVALID = "invalid"
    """Its hyperparameters cannot be trained."""
    FAILED = "failed"


@dataclass(frozen=True)
class Decision:
    """A searcher's answer."""

    created: tuple[int, ...] = ()
    """Numbers of new trials."""
    verdict: Verdict = Verdict.GO_ON


@dataclass(frozen=True)
class Outlook:
    """How far trials are likely to be trained, as shares of their full length."""

    ends: dict[int, float]
    """Of those that were created; one that is not named goes on to its full length."""
    to_come: tuple[float, ...]
    """Of those that are yet to be created."""


class Searcher(Protocol):
    """Decides which trials there are and which go on.

    Its decisions are a function of what it was told and in which order, so that telling it the
    same again makes it what it was.
    """

    def start(self) -> Decision:
        """The first trials."""

    def validated(self, trial: int, length: int, value: float) -> Decision:
        """A trial was validated.

        :param length: trained so far, in the searcher's unit.
        :param value: of the searched metric.
        """

    def ended(self, trial: int, ending: Ending) -> Decision:
        """A trial ended."""

    def rung(self, trial: int) -> str:
        """How far a trial has come, as `2 of 3`; empty where there are no rungs."""

    def outlook(self) -> Outlook:
        """What is likely to come, if trials are stopped as intended."""
