"""What every rank of a run shows of itself all the time, whatever it is doing or waiting for.

A rank writes to a file that it has mapped into its memory, so that others read the latest numbers
even of a rank that was killed. Nothing heavy is imported here: a rank shows that it lives before
it has imported TensorFlow.
"""

from __future__ import annotations

import enum
import mmap
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

BEAT = 0.5
"""Seconds between beats."""

_LAYOUT = struct.Struct("4q")


class Phase(enum.IntEnum):
    """What a rank is about."""

    STARTING = 0
    TRAINING = 1
    """Trains or validates."""
    BETWEEN = 2
    """Between two workloads, or saving: the disk, the master or rank 0 may take their time."""
    ENDING = 3
    """Nothing that others wait for is left to do."""


@dataclass(frozen=True)
class Reading:
    """A rank's pulse at a moment."""

    beats: int
    """Of a thread that does nothing else: they stop if the process is stopped."""
    events: int
    """Batches and workloads begun and ended: ranks that work together have equal numbers or wait
    for one."""
    steps: int
    """Training steps completed."""
    phase: Phase


class Pulse:
    """A rank's own side."""

    def __init__(self, root: Path, rank: int) -> None:
        path = _path(root, rank)
        path.write_bytes(_LAYOUT.pack(0, 0, 0, Phase.STARTING))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._events = 0
        threading.Thread(target=self._beat, daemon=True).start()

    def note(self, steps: int) -> None:
        """A batch or a workload begins, or a batch ends, after so many training steps."""
        self._events += 1
        self._put(1, self._events)
        self._put(2, steps)
        self._put(3, Phase.TRAINING)

    def rest(self) -> None:
        """A workload has ended; what comes next may take any time."""
        self._put(3, Phase.BETWEEN)

    def end(self) -> None:
        """Nothing that others wait for is left to do."""
        self._put(3, Phase.ENDING)

    def _beat(self) -> None:
        beats = 0
        while True:
            beats += 1
            self._put(0, beats)
            time.sleep(BEAT)

    def _put(self, place: int, number: int) -> None:
        struct.pack_into("q", self._memory, 8 * place, number)


def read_pulse(root: Path, rank: int) -> Reading | None:
    """The other side: a rank's latest pulse, or None before it has one."""
    try:
        beats, events, steps, phase = _LAYOUT.unpack(_path(root, rank).read_bytes())
    except (FileNotFoundError, struct.error):  # it is just being made
        return None
    return Reading(beats, events, steps, Phase(phase))


def _path(root: Path, rank: int) -> Path:
    return root / f"pulse-{rank}"
