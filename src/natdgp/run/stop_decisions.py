"""How a run of a search learns whether it goes on: a file in its folder, written by the search."""

from __future__ import annotations

import time
from pathlib import Path

from natdgp.run.run_folder import read_json, write_json

PAUSE = 0.02
"""Seconds between two looks at the file."""


class StopDecisions:
    """`stop-decision.json`: up to which step validations are judged, and whether the last stops it.

    A run waits for it after every validation, so that a search decides in the order of its results
    and a stopped trial takes no further step.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def give(self, steps: int, *, stop: bool) -> None:
        """In the search: all validations up to these steps are judged; the last may end the run."""
        write_json(self._path, {"steps": steps, "stop": stop})

    def stop(self, steps: int) -> bool:
        """In the run, after a validation: wait for its decision; returns whether the run ends."""
        while not self._path.is_file() or (decision := read_json(self._path))["steps"] < steps:
            time.sleep(PAUSE)
        return bool(decision["stop"]) and decision["steps"] == steps
