"""Ends a process with the one that started it. Nothing heavy is imported here."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
"""In Linux' prctl.h: the signal to get when the parent ends."""


def end_with_parent(parent: int) -> None:
    """Have this process killed when its parent ends, by kill -9 too.

    Linux does it, to a process that is stopped as well; elsewhere a thread of this one looks.

    :param parent: the process that started this one; it may have ended by now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_outlive, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _outlive(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
