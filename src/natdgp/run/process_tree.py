"""Processes by descent: ends one with all that it started."""

from __future__ import annotations

import contextlib
import time

import psutil

GRACE = 10.0
"""Seconds that the system may take to end processes that were killed."""


def end_family(pid: int, *, spare: int | None = None) -> None:
    """Kill a process, first, so that it starts no more, and its descendants, stopped ones too.

    :param spare: a descendant that lives on: the one that calls.
    """
    try:
        family = [psutil.Process(pid)]
        family += family[0].children(recursive=True)
    except psutil.NoSuchProcess:
        return
    family = [process for process in family if process.pid != spare]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + GRACE
    while any(map(_runs, family)) and time.monotonic() < deadline:
        time.sleep(0.05)


def descent() -> set[int]:
    """The processes that led to this one."""
    return {process.pid for process in psutil.Process().parents()}


def _runs(process: psutil.Process) -> bool:
    """Whether it does; a zombie waits only for whoever adopted it to look."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
