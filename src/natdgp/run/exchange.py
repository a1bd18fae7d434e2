"""How the command and the ranks of a run speak with each other: files in a folder of their own.

Nothing heavy is imported here: a rank must be able to see the end of the command at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natdgp.distributed.heartbeat import Pulse, Reading, read_pulse
from natdgp.run.process_lock import Lifeline
from natdgp.run.process_tree import descent, end_family


@dataclass(frozen=True)
class Orders:
    """What a rank has to know."""

    folder: str
    """The run's."""
    command: list[str]
    """The user's, for the manifest."""
    live: bool
    """Redraw the progress line."""
    terminal: bool
    """Whether rank 0's output ends on a terminal."""
    width: int
    """Of the screen."""
    of_search: bool = False
    """Whether the run is a trial of a search, which judges it."""


@dataclass(frozen=True)
class Verdict:
    """How rank 0 ended the run."""

    status: int = 0
    """The exit status of the command."""
    refused: str | None = None
    """What was wrong with the request, if it was."""


class Exchange:
    """A message is a file, written aside and renamed when whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pulse: Pulse | None = None
        """In a rank: its own."""

    def give(self, orders: Orders) -> None:
        """From the command to all ranks, before they start."""
        self._write("orders", dataclasses.asdict(orders))

    @property
    def orders(self) -> Orders:
        """What the command has ordered."""
        return Orders(**self._read("orders"))

    def launched(self, pid: int) -> None:
        """From the command: the launcher of the ranks."""
        self._write("launcher", pid)

    def ask_to_end(self, number: signal.Signals) -> None:
        """From the command or any rank: a signal asks the run to save and end."""
        self._write("asked", int(number))

    @property
    def asked(self) -> signal.Signals | None:
        """The signal that asks the run to end."""
        number = self._read("asked")
        return None if number is None else signal.Signals(number)

    def heed(self, heeds: bool) -> None:
        """From rank 0: whether it saves when it is asked to end."""
        self._write("heeds", heeds)

    @property
    def heeds(self) -> bool:
        """Whether rank 0 saves when it is asked to end."""
        return bool(self._read("heeds"))

    def conclude(self, verdict: Verdict) -> None:
        """From rank 0, as the last that it does."""
        self._write("verdict", dataclasses.asdict(verdict))

    @property
    def verdict(self) -> Verdict | None:
        """How rank 0 ended the run, if it has."""
        verdict = self._read("verdict")
        return None if verdict is None else Verdict(**verdict)

    def fail(self, rank: int, why: str) -> None:
        """From a rank that cannot go on."""
        self._write(f"failure-{rank}", why)

    def failure(self, rank: int) -> str | None:
        """Why a rank could not go on, if it could still say so."""
        why: str | None = self._read(f"failure-{rank}")
        return why

    def live(self, rank: int) -> None:
        """In a rank: show from now on that it lives."""
        self.pulse = Pulse(self.root, rank)

    def reading(self, rank: int) -> Reading | None:
        """In the command: a rank's latest pulse, or None before it has one."""
        return read_pulse(self.root, rank)

    @property
    def lifeline(self) -> Lifeline:
        """Held by the command; the ranks end with it."""
        return Lifeline(self.root / "lock")

    def clear_away(self) -> None:
        """In a rank, when the command is gone: end the launcher and the other ranks, stopped ones
        too, and leave no file. Of several ranks that try, one does it."""
        clearing = Lifeline(self.root / "clearing")
        if not clearing.hold():
            return
        launcher = self._read("launcher")
        if launcher in descent():  # else its number may be another process's by now
            end_family(launcher, spare=os.getpid())
        shutil.rmtree(self.root, ignore_errors=True)

    def _write(self, name: str, message: Any) -> None:
        aside = self.root / f".{name}.{os.getpid()}"
        aside.write_text(json.dumps(message), encoding="utf-8")
        os.replace(aside, self.root / name)

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.root / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
