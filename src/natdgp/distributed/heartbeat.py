"""What every rank of a run shows of itself all the time, whatever it is doing or waiting for.

Ranks of one machine share a file, in which each has mapped its record into its memory, so that
others read the latest numbers even of a rank that was killed. Nothing heavy is imported here: a
rank shows that it lives before it has imported TensorFlow.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass
from typing import IO

BEAT = 0.5
"""Seconds between beats."""

RECORD = struct.Struct("5q")
"""Of one rank in the file: the fields of a reading."""


class Phase(enum.IntEnum):
    """What a rank is about."""

    STARTING = 0
    TRAINING = 1
    VALIDATING = 2
    SAVING = 3
    """Compares what ranks hold, and saves."""
    WAITING = 4
    """For what is no rank, or for rank 0 to say what comes next: it may take its time."""
    ENDING = 5
    """Nothing that others wait for is left to do."""


@dataclass(frozen=True)
class Reading:
    """What a rank showed at a moment."""

    beats: int
    """Of a thread that does nothing else: they stop if the process is stopped."""
    events: int
    """Batches begun and ended, and the like: ranks that work together have equal numbers or wait
    for one."""
    steps: int
    """Training steps completed."""
    phase: Phase
    first: bool
    """Whether this rank has finished nothing of that phase before: graphs are traced in it."""


class Heartbeat:
    """A rank's own side."""

    def __init__(self, file: IO[bytes], rank: int) -> None:
        """:param file: of the ranks of this machine, open to read and write.
        :param rank: the number of this one among them.
        """
        self._offset = rank * RECORD.size
        os.pwrite(file.fileno(), RECORD.pack(1, 0, 0, Phase.STARTING, True), self._offset)
        self._memory = mmap.mmap(file.fileno(), self._offset + RECORD.size)
        self._events = 0
        self._phase = Phase.STARTING
        self._known: set[Phase] = set()
        threading.Thread(target=self._beat, daemon=True).start()

    def begin(self, phase: Phase, steps: int) -> None:
        """Work of a phase begins or goes on, after so many training steps."""
        self._phase = phase
        self._put(4, phase not in self._known)
        self._put(2, steps)
        self.note()
        self._put(3, phase)

    def note(self) -> None:
        """Something is done on which others may have to wait for this rank."""
        self._events += 1
        self._put(1, self._events)

    def finish(self, steps: int) -> None:
        """A batch of the work that began is complete, after so many training steps."""
        self._known.add(self._phase)
        self.begin(self._phase, steps)

    def wait(self) -> None:
        """What comes next may take any time."""
        self._put(3, Phase.WAITING)

    def end(self) -> None:
        """Nothing that others wait for is left to do."""
        self._put(3, Phase.ENDING)

    def _beat(self) -> None:
        beats = 1
        while True:
            beats += 1
            self._put(0, beats)
            time.sleep(BEAT)

    def _put(self, field: int, number: int) -> None:
        struct.pack_into("q", self._memory, self._offset + 8 * field, number)


def read_heartbeat(file: IO[bytes], rank: int) -> Reading | None:
    """The other side: what a rank shows, or None before it has begun to."""
    record = os.pread(file.fileno(), RECORD.size, rank * RECORD.size)
    if len(record) < RECORD.size or not any(record):
        return None
    beats, events, steps, phase, first = RECORD.unpack(record)
    return Reading(beats, events, steps, Phase(phase), bool(first))
