"""The loop of a search: start trials, hear of their results, and do what its methods decide."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from natdgp.data.table import DataError
from natdgp.run.durable_files import saving
from natdgp.run.exit_status import REFUSED
from natdgp.run.journal import VALIDATION
from natdgp.run.run_folder import FolderError, RunFolder, read_json, read_json_lines
from natdgp.run.run_session import new_run
from natdgp.run.stop_decisions import StopDecisions
from natdgp.search.event_log import EventLog
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_state import Trial, ended, validated
from natdgp.settings import Experiment, Search, SettingsError
from natdgp.settings.schema import Settings
from natdgp.settings.searchers import HalvingSearcher

PAUSE: Final = 0.05
"""Seconds between two looks at the trials."""

INVALID_IN_A_ROW: Final = 20
"""After so many that gave way to others a search gives up, or it might go on for ever."""

PROGRAM = (sys.executable, "-m", "natdgp.search.program")
"""Trains the trial of a run's folder: `PROGRAM RUN SEARCH`, the last its process."""


def experiment_of(search: Search, trial: Trial) -> Experiment:
    """What `natdgp train` would be given to train this trial alone, to its full length.

    :raises SettingsError: if its hyperparameters are invalid.
    """
    kept = {"metric", "smaller_is_better", "max_length"}
    searcher = search.searcher.model_dump(include=kept, exclude_none=True)
    own = {
        "name": f"{search.config['name']}-trial-{trial.number:04d}",
        "searcher": {**searcher, "name": "single"},
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

    def __init__(self, trial: Trial, run: RunFolder, environment: Mapping[str, str]) -> None:
        """Start it from the latest checkpoint of its run, in a session of its own: what a terminal
        sends reaches the search alone.

        :param environment: variables beside those of this process.
        :raises NotSaved: if its log cannot be opened.
        """
        self.trial = trial
        self.run = run
        self.environment = environment
        self._log = run.root / "output.log"
        self._seen: tuple[int, int] | None = None
        with saving(self._log):
            log = self._log.open("a", encoding="utf-8")
        with log:
            self.process = subprocess.Popen(
                [*PROGRAM, str(run.root), str(os.getpid())],
                env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def reported(self) -> bool:
        """Whether its metrics changed since this was asked last."""
        stat = self.run.metrics.stat() if self.run.metrics.is_file() else None
        seen, self._seen = self._seen, stat and (stat.st_mtime_ns, stat.st_size)
        return self._seen != seen

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        printed = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(printed) if line.strip()), "")

    @property
    def invalid_because(self) -> str | None:
        """Why its hyperparameters cannot be trained, if that is how it ended."""
        if not self.run.manifest.is_file():
            return None
        session = read_json(self.run.manifest)["sessions"][-1]
        return session.get("reason") if session.get("ended_as") == "invalid" else None


class Runner:
    """Runs a search from where its folder stands."""

    def __init__(
        self,
        log: EventLog,
        folder: SearchFolder,
        environments: Sequence[Mapping[str, str]],
        notify: Callable[[Trial | None], None],
    ) -> None:
        """:param log: of the search, which goes on from its state.
        :param environments: variables for each of the trials that may be under way at once.
        :param notify: is told of a trial that begins or has ended; of None where time went by.
        """
        self.state = log.state
        self.jobs: list[Job] = []
        """Trials under way."""
        self.signal: signal.Signals | None = None
        """What asked the search to end."""
        self.failure: str | None = None
        """Why it cannot go on: the request is wrong, or no point can be trained."""
        self._log = log
        self._folder = folder
        self._notify = notify
        self._free = list(environments)
        self._asked = False

    def run(self) -> None:
        """Run to the end, or to the first signal or failure; either has the other trials saved.

        :raises NotSaved: if the disk refuses; trials under way end, and go on from what they saved.
        """
        try:
            while self._start_trials():
                if self._ends_early and not self._asked:
                    self._asked = True  # once: a second signal would end them at once
                    for job in self.jobs:
                        job.process.terminate()
                for job in list(self.jobs):
                    self._look_after(job)
                self._notify(None)
                time.sleep(PAUSE)
        finally:
            for job in self.jobs:
                job.process.kill()
                job.process.wait()

    def interrupt(self, number: signal.Signals) -> None:
        """Have the trials saved, and end."""
        self.signal = number

    @property
    def _ends_early(self) -> bool:
        return self.signal is not None or self.failure is not None

    def _start_trials(self) -> bool:
        """Start as many trials as may be; returns whether any is under way."""
        while not self._ends_early and self._free:
            waiting = [trial for trial in self.state.open if not trial.under_way]
            if not waiting:
                break
            self._start(waiting[0])
        return bool(self.jobs)

    def _start(self, trial: Trial) -> None:
        try:
            run = run_folder_of(self.state.search, self._folder, trial)
        except SettingsError as error:
            self._end(trial, TrialEnding.INVALID, str(error))
            return
        saved = saved_steps(run)
        self._hear(trial, run, up_to=saved)  # what lies beyond will be reported again
        if trial.to_end is not None and saved == trial.last_validation:
            self._end(trial, trial.to_end)
            return
        try:
            self._log.check_data()
        except (DataError, FolderError) as error:
            self.failure = str(error)
            return
        self.jobs.append(Job(trial, run, self._free.pop(0)))
        trial.under_way = True
        self._notify(trial)

    def _look_after(self, job: Job) -> None:
        """Hear of a trial under way."""
        status = job.process.poll()  # first: a process that has ended reports no more
        if job.reported():
            self._hear(job.trial, job.run)
        if status is not None:
            job.trial.under_way = False
            self.jobs.remove(job)
            self._free.append(job.environment)
            self._conclude(job, status)

    def _conclude(self, job: Job, status: int) -> None:
        """Note how the process of a trial ended, unless it has to go on another time.

        One that was judged to end has done so in order, whatever its status, if it left the
        checkpoint of the validation that was judged.
        """
        trial = job.trial
        if trial.to_end is not None and saved_steps(job.run) == trial.last_validation:
            self._end(trial, trial.to_end)
        elif trial.to_end is None and status == 0:
            self._end(trial, TrialEnding.COMPLETED)
        elif status == REFUSED:
            self.failure = self.failure or f"trial {trial.number}: {job.last_line}"
        elif self._ends_early:
            return
        elif (why := job.invalid_because) is not None:
            self._end(trial, TrialEnding.INVALID, why)
        elif status < 0:
            self._end(trial, TrialEnding.FAILED, f"ended by {signal.Signals(-status).name}")
        else:
            self._end(trial, TrialEnding.FAILED, job.last_line)

    def _hear(self, trial: Trial, run: RunFolder, up_to: float = math.inf) -> None:
        """Take the validations that the search does not know, and decide if the trial goes on."""
        searcher = self.state.search.searcher
        unit = searcher.time_metric if isinstance(searcher, HalvingSearcher) else "batches"
        for report in validations_of(run):
            steps, metrics = report["steps_completed"], report["metrics"]
            if trial.last_validation < steps <= up_to:
                length, value = int(metrics[unit]), metrics[searcher.metric]
                self._log.take(validated(trial.number, steps, length, value))
        StopDecisions(run.stop_decisions).give(trial.last_validation, stop=trial.to_end is not None)

    def _end(self, trial: Trial, ending: TrialEnding, reason: str | None = None) -> None:
        self._log.take(ended(trial.number, ending, reason))
        self._notify(trial)
        if (count := self.state.invalid_in_a_row) >= INVALID_IN_A_ROW:
            self.failure = self.failure or (
                f"{count} trials in a row were invalid, the last because {reason}; change the space"
            )
