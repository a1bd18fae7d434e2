"""Ties the life of processes to that of the one that started them, however it ends.

Nothing heavy is imported here: a process must be able to see the end of its parent at once.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

LOCK = "lock"
"""Its file, in the folder of a run or a search."""


class Lifeline:
    """A lock that one process holds; those that watch it end when it is let go."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def hold(self, patience: float = 0.0, *, shareable: bool = False) -> bool:
        """Let watching processes live for as long as this one does, or until `release`.

        :param shareable: let others `join`; the next to hold it has to wait for them too.
        :param patience: seconds for which to wait where the lock is taken, by a process that holds
            it or by ones that are about to end.
        :returns: whether this process has the lock now.
        """
        self._held = self._path.open("w")
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if shareable:
                    fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._held.close()
                    return False
                time.sleep(0.05)
            else:
                return True

    def join(self) -> None:
        """Hold the lock beside the process that made it shareable.

        :raises BlockingIOError: if another process has it to itself.
        """
        self._held = self._path.open()
        try:
            fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.close()
            raise

    def release(self) -> None:
        """Let go: watching processes end."""
        self._held.close()

    def watch(
        self, parent: int | None = None, before_end: Callable[[], None] = lambda: None
    ) -> None:
        """End this process when the holder ends, kill -9 included.

        :param parent: the holder, if it started this process; should it have ended before, another
            may hold the lock by now, whose life is not this one's.
        :param before_end: what is left to do then.
        """
        lock = self._path.open()

        def wait() -> None:
            fcntl.flock(lock, fcntl.LOCK_SH)  # granted when the holder is gone
            try:
                before_end()
            finally:
                os._exit(1)

        threading.Thread(target=wait, daemon=True).start()
        if parent not in (None, os.getppid()):
            os._exit(1)
