"""What the command and the ranks of a run say to each other: numbers in memory that all share.

It is a file without a name that each has mapped: a signal handler may write there, a rank that was
killed is still read, and nothing is left when all have ended, however they do.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
from typing import IO

from natdgp.distributed.heartbeat import RECORD, Heartbeat, Reading, read_heartbeat

_ASKED, _HEEDS, _CONCLUDED, _STATUS = (8 * word for word in range(4))


class RankChannel:
    """The heartbeats of K ranks, and what one of them or the command has for all."""

    def __init__(self, file: IO[bytes], ranks: int) -> None:
        """:param file: empty when the command begins; ranks inherit it.
        :param ranks: K.
        """
        self._file = file
        self._start = ranks * RECORD.size
        if os.fstat(file.fileno()).st_size == 0:
            os.pwrite(file.fileno(), bytes(self._start + 32), 0)
        self._memory = mmap.mmap(file.fileno(), self._start + 32)
        self.heartbeat: Heartbeat | None = None
        """In a rank: its own."""

    @property
    def asked(self) -> signal.Signals | None:
        """The signal that asks the run to end."""
        number = self._get(_ASKED)
        return signal.Signals(number) if number else None

    def ask_to_end(self, number: signal.Signals) -> None:
        """From the command or any rank: a signal asks the run to save and end."""
        self._put(_ASKED, number)

    @property
    def heeds(self) -> bool:
        """Whether rank 0 saves when it is asked to end."""
        return bool(self._get(_HEEDS))

    def heed(self, heeds: bool) -> None:
        """From rank 0: whether it saves when it is asked to end."""
        self._put(_HEEDS, heeds)

    @property
    def status(self) -> int | None:
        """The exit status that rank 0 has for the command, once it has done all it had to."""
        return self._get(_STATUS) if self._get(_CONCLUDED) else None

    def conclude(self, status: int) -> None:
        """From rank 0, as the last that it does; whoever failed before has said so."""
        self._put(_STATUS, status)
        self._put(_CONCLUDED, True)

    def show(self, rank: int) -> None:
        """In a rank: show from now on that it lives."""
        self.heartbeat = Heartbeat(self._file, rank)

    def reading(self, rank: int) -> Reading | None:
        """In the command: what a rank shows, or None before it has begun to."""
        return read_heartbeat(self._file, rank)

    def _get(self, place: int) -> int:
        return int(struct.unpack_from("q", self._memory, self._start + place)[0])

    def _put(self, place: int, number: int) -> None:
        struct.pack_into("q", self._memory, self._start + place, number)
