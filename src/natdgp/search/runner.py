"""The loop of a search: start trials, hear of their results, and do what its methods decide."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from natdgp.data.table import DataError
from natdgp.run.exit_status import REFUSED
from natdgp.run.run_folder import FolderError, RunFolder
from natdgp.run.stop_decisions import StopDecisions
from natdgp.search.event_log import EventLog
from natdgp.search.job import PROGRAM, Job, run_folder_of, saved_steps, validations_of
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_state import (
    SearchEvent,
    Trial,
    TrialEnded,
    TrialStarted,
    TrialValidated,
)
from natdgp.settings import SettingsError
from natdgp.settings.searchers import HalvingSearcher

PAUSE: Final = 0.05
"""Seconds between two looks at the trials."""

INVALID_IN_A_ROW: Final = 20
"""After so many that gave way to others a search gives up, or it might go on for ever."""

Notify = Callable[[SearchEvent | TrialStarted | None], None]
"""Is told of everything, once the search has decided; of None where only time went by."""


class Runner:
    """Runs a search from where its folder stands."""

    def __init__(
        self,
        log: EventLog,
        folder: SearchFolder,
        environments: Sequence[Mapping[str, str]],
        notify: Notify,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """:param log: of the search, which goes on from its state.
        :param environments: variables for each of the trials that may be under way at once.
        :param program: trains a trial, as PROGRAM does.
        """
        self.state = log.state
        self.jobs: dict[int, Job] = {}
        """Trials under way."""
        self.signal: signal.Signals | None = None
        """What asked the search to end."""
        self.failure: str | None = None
        """Why it cannot go on: the request is wrong, or no point can be trained."""
        self._log = log
        self._folder = folder
        self._notify = notify
        self._program = program
        self._free = list(environments)

    def run(self) -> None:
        """Run to the end, or to the first signal or failure; either has the other trials saved.

        :raises NotSaved: if the disk refuses; trials under way end, and go on from what they saved.
        """
        try:
            while self._start_trials() or self.jobs:
                if self._ends_early:
                    for job in self.jobs.values():
                        job.ask_to_end()
                heard = [self._look_after(number) for number in list(self.jobs)]
                if not any(heard):
                    self._notify(None)
                    time.sleep(PAUSE)
        finally:
            for job in self.jobs.values():
                job.kill()

    def interrupt(self, number: signal.Signals) -> None:
        """Have the trials saved, and end."""
        self.signal = number

    @property
    def _ends_early(self) -> bool:
        return self.signal is not None or self.failure is not None

    def _start_trials(self) -> bool:
        """Start as many trials as may be; returns whether any was."""
        begun = False
        while not self._ends_early and self._free:
            waiting = [trial for trial in self.state.open if trial.number not in self.jobs]
            if not waiting:
                break
            self._start(waiting[0])
            begun = True
        return begun

    def _start(self, trial: Trial) -> None:
        try:
            run = run_folder_of(self.state.search, self._folder, trial)
        except SettingsError as error:
            self._take(TrialEnded(trial.number, TrialEnding.INVALID, str(error)))
            return
        saved = saved_steps(run)
        self._hear(trial, run, up_to=saved)  # what lies beyond will be reported again
        if trial.to_end is not None and saved == trial.last_validation:
            self._take(TrialEnded(trial.number, trial.to_end))
            return
        try:
            self._log.check_data()
        except (DataError, FolderError) as error:
            self.failure = str(error)
            return
        self._judge(trial, run)
        self.jobs[trial.number] = Job(self._program, run, self._free.pop(0))
        self._notify(TrialStarted(trial.number))

    def _look_after(self, number: int) -> bool:
        """Hear of a trial under way; returns whether there was anything."""
        job, trial = self.jobs[number], self.state.trials[number]
        status = job.poll()  # first: a process that has ended reports no more
        if heard := job.reported() and self._hear(trial, job.run):
            self._judge(trial, job.run)
        if status is None:
            return heard
        del self.jobs[number]
        self._free.append(job.environment)
        if (ended := self._ended(trial, job, status)) is not None:
            self._take(ended)
        return True

    def _ended(self, trial: Trial, job: Job, status: int) -> TrialEnded | None:
        """How the process of a trial ended; None if it has to go on another time.

        One that was judged to end has done so in order, whatever its status, if it left the
        checkpoint of the validation that was judged.
        """
        if trial.to_end is not None and saved_steps(job.run) == trial.last_validation:
            return TrialEnded(trial.number, trial.to_end)
        if trial.to_end is None and status == 0:
            return TrialEnded(trial.number, TrialEnding.COMPLETED)
        if status == REFUSED:
            self.failure = self.failure or f"trial {trial.number}: {job.last_line}"
        if self._ends_early:
            return None
        if (why := job.invalid_because) is not None:
            return TrialEnded(trial.number, TrialEnding.INVALID, why)
        why = f"ended by {signal.Signals(-status).name}" if status < 0 else job.last_line
        return TrialEnded(trial.number, TrialEnding.FAILED, why)

    def _judge(self, trial: Trial, run: RunFolder) -> None:
        """Let it go on after its last validation, or save and end."""
        StopDecisions(run.stop_decisions).give(trial.last_validation, stop=trial.to_end is not None)

    def _hear(self, trial: Trial, run: RunFolder, up_to: float = math.inf) -> bool:
        """Take the validations that the search does not know; returns whether there were any."""
        searcher, known = self.state.search.searcher, trial.last_validation
        unit = searcher.time_metric if isinstance(searcher, HalvingSearcher) else "batches"
        for report in list(validations_of(run)):
            steps, metrics = report["steps_completed"], report["metrics"]
            if trial.last_validation < steps <= up_to:
                length, value = int(metrics[unit]), metrics[searcher.metric]
                self._take(TrialValidated(trial.number, steps, length, value))
        return trial.last_validation > known

    def _take(self, event: SearchEvent) -> None:
        self._log.take(event)
        self._notify(event)
        count = self.state.invalid_in_a_row
        if isinstance(event, TrialEnded) and count >= INVALID_IN_A_ROW:
            self.failure = self.failure or (
                f"{count} trials in a row were invalid, the last because {event.reason}; "
                "change the space"
            )
