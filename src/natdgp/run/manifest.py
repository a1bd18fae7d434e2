"""Where a run came from: versions, commit, machine and timings."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from natdgp.checkpoint.record import versions
from natdgp.run.durable_files import NotSaved
from natdgp.run.run_folder import FolderError, read_json, write_json
from natdgp.training.diagnosis import TrainingFailure


class Manifest:
    """`manifest.json`: one entry under `sessions` for the first start and for every resume.

    A session ends with the block; as `failed`, or `invalid` with the reason of a TrainingFailure,
    if that is left by an exception. One that was killed has no ending.
    """

    def __init__(self, path: Path, *, seed: int, slots: int) -> None:
        """Open a new session and write it at once.

        :param path: the file, read first if it exists.
        :param seed: the trial's seed.
        :param slots: processes of this session.
        :raises FolderError: if the file is no manifest.
        """
        self._path = path
        self._began = time.monotonic()
        self._content: dict[str, Any] = {"seed": seed, "sessions": []}
        if path.is_file():
            self._content = read_json(path)
            if not isinstance(self._content.get("sessions"), list):
                raise FolderError(f"{path}: no manifest of a run; restore or delete that file")
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
        self._ending: dict[str, Any] = {"ended_as": "failed"}

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, TrainingFailure):
            self._ending = {"ended_as": "invalid", "reason": str(error)}
        seconds = time.monotonic() - self._began
        self._session.update(ended=_now(), seconds=seconds, **self._ending)
        # What was not saved before is not hidden by this.
        with contextlib.suppress(NotSaved) if error else contextlib.nullcontext():
            write_json(self._path, self._content)

    def end(self, ended_as: str, steps: int) -> None:
        """Say how the session ends: `completed`, `stopped` or `interrupted`, after which step."""
        self._ending = {"ended_as": ended_as, "steps": steps}

    @property
    def seconds(self) -> float:
        """Wall time of all ended sessions."""
        return float(sum(session.get("seconds", 0.0) for session in self._content["sessions"]))


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
