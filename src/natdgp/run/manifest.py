"""Where a run came from: versions, commit, machine and timings."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from natdgp.checkpoint.record import versions
from natdgp.run.run_folder import FolderError, read_json, write_json


class Manifest:
    """`manifest.json`: one entry under `sessions` for the first start and for every resume."""

    def __init__(self, path: Path, *, seed: int, slots: int) -> None:
        """Open a new session and write it at once.

        :param path: the file, read first if it exists.
        :param seed: the trial's seed.
        :param slots: processes of this session.
        :raises FolderError: if the file is no manifest.
        """
        self._path = path
        self._content: dict[str, Any] = {"seed": seed, "sessions": []}
        if path.is_file():
            self._content = _read(path)
        self._session: dict[str, Any] = {
            "command": shlex.join(sys.argv),
            "slots": slots,
            "commit": _commit(),
            "versions": {**versions(), "python": platform.python_version()},
            "machine": {
                "platform": platform.platform(),
                "cores": os.cpu_count(),
                "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")],
            },
            "started": _now(),
        }
        self._content["sessions"].append(self._session)
        write_json(path, self._content)

    @property
    def seconds(self) -> float:
        """Wall time of all ended sessions."""
        return float(sum(session.get("seconds", 0.0) for session in self._content["sessions"]))

    def close(
        self, *, ended_as: str, steps: int, seconds: float, reason: str | None = None
    ) -> None:
        """Close the session.

        :param ended_as: `completed`, `interrupted`, `stopped`, `invalid` or `failed`.
        :param steps: training steps completed.
        :param seconds: wall time of this session.
        :param reason: why the run is invalid.
        """
        self._session.update(ended=_now(), ended_as=ended_as, steps=steps, seconds=seconds)
        if reason is not None:
            self._session["reason"] = reason
        write_json(self._path, self._content)


def close_lost_session(path: Path, *, seconds: float) -> None:
    """Note that the latest session failed, if the process that it ran in could not.

    :param path: the manifest.
    :param seconds: wall time of the session.
    """
    if not path.is_file():
        return
    content = _read(path)
    for session in content["sessions"][-1:]:
        if "ended_as" not in session:
            session.update(ended=_now(), ended_as="failed", seconds=seconds)
            write_json(path, content)


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    sessions = content.get("sessions")
    if not isinstance(sessions, list) or not all(isinstance(one, dict) for one in sessions):
        raise FolderError(f"{path}: this is no manifest of a run; restore or delete that file")
    for number, session in enumerate(sessions, start=1):
        seconds = session.get("seconds", 0.0)
        if not isinstance(seconds, (int, float)) or not 0 <= seconds <= sys.float_info.max:
            raise FolderError(
                f"{path}: seconds of session {number} is {seconds!r}, no length of time; mend it, "
                "or restore or delete that file"
            )
    return content


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _commit() -> str | None:
    """The commit of the working directory, with `-dirty` where files differ; None outside git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:  # no git on this machine
        return None
    return described.stdout.strip() or None
