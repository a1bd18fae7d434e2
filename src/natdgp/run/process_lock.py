"""A folder's lock, held by the one command that works there and the processes that it starts."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

LOCK = "lock"
"""Its file, in the folder of a run or a search."""


class ProcessLock:
    """A lock on a file; it is free when the last process that has inherited it has ended."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def hold(self, patience: float = 0.0) -> bool:
        """Take the lock until `release`, or until this process ends.

        :param patience: seconds for which to wait where it is taken, by processes about to end.
        :returns: whether this process has it now.
        """
        self._file = self._path.open("w")
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._file.close()
                    return False
                time.sleep(0.05)
            else:
                return True

    def fileno(self) -> int:
        """What a child process has to inherit to hold the lock too, for as long as it lives."""
        return self._file.fileno()

    def release(self) -> None:
        """Let go; children that have inherited the lock still hold it."""
        self._file.close()
