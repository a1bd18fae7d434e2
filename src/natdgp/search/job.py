"""A trial of a search as a run of its own: its folder and its process, as the search sees them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from natdgp.run.durable_files import saving
from natdgp.run.journal import VALIDATION
from natdgp.run.run_folder import RunFolder, read_json_lines
from natdgp.run.run_session import new_run
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_state import Trial
from natdgp.settings import Experiment, Search
from natdgp.settings.schema import Settings

LOG = "output.log"
"""What a trial's process prints, in the folder of its run."""

PROGRAM = (sys.executable, "-m", "natdgp.search.program")
"""Trains the trial of a run's folder: `PROGRAM RUN SEARCH`, the last its process."""


def experiment_of(search: Search, trial: Trial) -> Experiment:
    """What `natdgp train` would be given to train this trial alone, to its full length.

    :raises SettingsError: if its hyperparameters are invalid.
    """
    kept = {"metric", "smaller_is_better", "max_length"}
    own = {
        "name": f"{search.config['name']}-trial-{trial.number:04d}",
        "searcher": {
            **search.searcher.model_dump(include=kept, exclude_none=True),
            "name": "single",
        },
        "hyperparameters": trial.point,
        "reproducibility": {"experiment_seed": trial.seed},
    }
    settings = Settings.read(trial.point, search.config["data"])
    return Experiment({**search.config, **own}, settings)


def run_folder_of(search: Search, folder: SearchFolder, trial: Trial) -> RunFolder:
    """The folder of a trial's run, made if it is not there.

    :raises SettingsError: if its hyperparameters are invalid.
    """
    root = folder.trial(trial.number)
    if (run := RunFolder(root)).config.is_file():
        return run
    shutil.rmtree(root, ignore_errors=True)  # left by a search that was killed while making it
    return new_run(experiment_of(search, trial), folder.code, root)


def validations_of(run: RunFolder) -> Iterator[dict[str, Any]]:
    """The reports of validations in a run's folder."""
    return (entry for entry in read_json_lines(run.metrics) if entry["group"] == VALIDATION)


def saved_steps(run: RunFolder) -> int:
    """Steps of the latest checkpoint; -1: there is none."""
    return max((checkpoint.steps for checkpoint in run.checkpoints()), default=-1)


class Job:
    """A trial under way."""

    def __init__(
        self, program: Sequence[str], run: RunFolder, environment: Mapping[str, str]
    ) -> None:
        """Start it from the latest checkpoint of its run, in a session of its own: what a terminal
        sends reaches the search alone.

        :param program: trains a trial, as PROGRAM does.
        :param environment: variables beside those of this process.
        :raises NotSaved: if its log cannot be opened.
        """
        self.run = run
        self.environment = environment
        self._asked = False
        self._seen: tuple[int, int] | None = None
        with saving(run.root / LOG):
            log = (run.root / LOG).open("a", encoding="utf-8")
        with log:
            self._process = subprocess.Popen(
                [*program, str(run.root), str(os.getpid())],
                env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """The exit status, if it has ended."""
        return self._process.poll()

    def reported(self) -> bool:
        """Whether its metrics changed since this was asked last."""
        stat = self.run.metrics.stat() if self.run.metrics.is_file() else None
        seen, self._seen = self._seen, stat and (stat.st_mtime_ns, stat.st_size)
        return self._seen != seen

    def ask_to_end(self) -> None:
        """Have it save and end; a second signal would end it at once, so there is only one."""
        if not self._asked:
            self._asked = True
            self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        printed = (self.run.root / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(printed) if line.strip()), "")

    @property
    def invalid_because(self) -> str | None:
        """Why its hyperparameters cannot be trained, if that is how it ended."""
        if not self.run.manifest.is_file():
            return None
        session = json.loads(self.run.manifest.read_text(encoding="utf-8"))["sessions"][-1]
        return session.get("reason") if session.get("ended_as") == "invalid" else None
