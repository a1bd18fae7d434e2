"""`natdgp train` as a user starts it: processes of its own, looked at from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests.conftest import REPOSITORY

NATDGP = Path(sys.executable).parent / "natdgp"

ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}

Command = subprocess.Popen[str]


def start(*arguments: str | Path, cwd: Path = REPOSITORY) -> Command:
    """`natdgp train` in a session of its own, as a terminal's job is."""
    return subprocess.Popen(
        [NATDGP, "train", *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(command: Command, timeout: float = 600) -> tuple[int, str, str]:
    out, err = command.communicate(timeout=timeout)
    return command.returncode, out, err


def await_line(command: Command, start: str) -> None:
    """Read what the command prints until a line starts so."""
    assert command.stdout is not None
    for line in command.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"no line starts with {start!r}: {finish(command)}")


def descendants(command: Command) -> list[psutil.Process]:
    return list(psutil.Process(command.pid).children(recursive=True))


def process_of(processes: list[psutil.Process], rank: int) -> psutil.Process:
    """The process of a rank; shells and launchers around it have no rank in their environment."""
    (found,) = (p for p in processes if p.environ().get("HOROVOD_RANK") == str(rank))
    return found


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie waits for whoever adopted it to look."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def listening(processes: list[psutil.Process]) -> set[int]:
    """What these processes listen on."""
    pids = {process.pid for process in processes}
    return {
        one.laddr.port
        for one in psutil.net_connections("tcp")
        if one.pid in pids and one.status == psutil.CONN_LISTEN
    }


def listened_on(numbers: set[int]) -> set[int]:
    """Those of the ports that any process listens on."""
    listening = {
        one.laddr.port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN
    }
    return numbers & listening
