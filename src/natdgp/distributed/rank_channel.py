"""What the command and the ranks of a run say to each other: numbers in memory that all share.

It is a file without a name that each has mapped: a signal handler may write there, a rank that was
killed is still read, and nothing is left when all have ended, however they do.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
from collections.abc import Iterator
from typing import IO

from natdgp.distributed.heartbeat import RECORD, Heartbeat, Reading, read_heartbeat

_ASKED, _HEEDS, _CONCLUDED, _STATUS = range(4)
"""Numbers of 8 bytes, behind the heartbeats."""


class RankChannel:
    """The heartbeats of K ranks, and what one of them or the command has for all."""

    def __init__(self, file: IO[bytes] | None = None, ranks: int = 1) -> None:
        """:param file: empty when the command begins; ranks inherit it. None where there is one
            process, which has no other to speak to.
        :param ranks: K.
        """
        self.ranks = ranks
        self.heartbeat: Heartbeat | None = None
        """In one of several ranks: its own."""
        self._file = file
        start = ranks * RECORD.size
        size = start + 4 * 8
        if file is not None and os.fstat(file.fileno()).st_size == 0:
            os.truncate(file.fileno(), size)
        memory = mmap.mmap(-1 if file is None else file.fileno(), size)
        self._words = memoryview(memory)[start:].cast("q")

    @property
    def asked(self) -> signal.Signals | None:
        """The signal that asks the run to end."""
        number = self._words[_ASKED]
        return signal.Signals(number) if number else None

    def ask_to_end(self, number: signal.Signals) -> None:
        """From the command or any rank: a signal asks the run to save and end."""
        if self.asked is None:
            self._words[_ASKED] = number

    @property
    def heeds(self) -> bool:
        """Whether rank 0 saves when it is asked to end."""
        return bool(self._words[_HEEDS])

    @contextlib.contextmanager
    def heeding(self) -> Iterator[None]:
        """In rank 0: inside, the run saves and ends when it is asked to."""
        self._words[_HEEDS] = True
        try:
            yield
        finally:
            self._words[_HEEDS] = False

    @property
    def status(self) -> int | None:
        """The exit status that rank 0 has for the command, once it has done all it had to."""
        return self._words[_STATUS] if self._words[_CONCLUDED] else None

    def conclude(self, status: int) -> None:
        """From rank 0, as the last that it does; whoever failed before has said so."""
        self._words[_STATUS] = status
        self._words[_CONCLUDED] = True

    def show(self, rank: int) -> None:
        """In one of several ranks: show from now on that it lives."""
        assert self._file is not None
        self.heartbeat = Heartbeat(self._file, rank)

    def reading(self, rank: int) -> Reading | None:
        """In the command: what a rank shows, or None before it has begun to."""
        assert self._file is not None
        return read_heartbeat(self._file, rank)
