"""The loop of a search: start trials, hear of their results, and do what the searcher decides."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from natdgp.data.table import DataError
from natdgp.run.exit_status import REFUSED
from natdgp.run.run_folder import FolderError, RunFolder
from natdgp.run.verdicts import Verdicts
from natdgp.search.decisions import Ending, Verdict
from natdgp.search.event_log import Ledger
from natdgp.search.events import Ended, Event, Validated
from natdgp.search.job import PROGRAM, Job, validations_of
from natdgp.search.progress import Progress, Trial
from natdgp.search.search_folder import SearchFolder
from natdgp.search.searcher_state import replaces_invalid
from natdgp.search.trials import run_folder_of
from natdgp.settings import SettingsError
from natdgp.settings.searchers import HalvingSearcher

PAUSE: Final = 0.05
"""Seconds between two looks at the trials."""

INVALID_IN_A_ROW: Final = 20
"""After so many a search that replaces them gives up: it would go on for ever where no point can be
trained."""


class SearchError(RuntimeError):
    """A search that cannot go on; the message says what to do."""


class Observer(Protocol):
    """Watches a search, e.g. to show it."""

    def begun(self, progress: Progress, trial: Trial) -> None:
        """The process of a trial was started."""

    def heard(self, progress: Progress, event: Event) -> None:
        """Something happened, and the searcher has decided."""

    def waited(self, progress: Progress) -> None:
        """Some time went by."""


class Runner:
    """Runs a search from where its folder stands."""

    def __init__(
        self,
        progress: Progress,
        ledger: Ledger,
        folder: SearchFolder,
        environments: Sequence[Mapping[str, str]],
        observer: Observer,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """:param progress: where the search stands, by the events of the ledger.
        :param environments: variables for each of the trials that may be under way at once.
        :param program: trains a trial, as PROGRAM does.
        """
        self._progress = progress
        self._ledger = ledger
        self._folder = folder
        self._observer = observer
        self._program = program
        self._free = list(environments)
        self._jobs: dict[int, tuple[Job, Mapping[str, str]]] = {}
        self.signal: signal.Signals | None = None
        self._gave_up: SearchError | None = None

    def run(self) -> None:
        """Run to the end, or to the first signal or error; either has the other trials saved.

        :raises SearchError: if something is wrong with the request, or no point can be trained.
        :raises NotSaved: if the disk refuses; trials under way end, and go on from what they saved.
        """
        try:
            while self._start_trials() or self._jobs:
                if self._ends_early:
                    for job, _ in self._jobs.values():
                        job.ask_to_end()
                heard = [self._look_after(number) for number in list(self._jobs)]
                if not any(heard):
                    self._observer.waited(self._progress)
                    time.sleep(PAUSE)
        finally:
            for job, _ in self._jobs.values():
                job.kill()
        if self._gave_up is not None:
            raise self._gave_up

    def ask_to_end(self, number: signal.Signals) -> None:
        """Have the trials that are under way saved, and start no others."""
        self.signal = number

    @property
    def _ends_early(self) -> bool:
        return self.signal is not None or self._gave_up is not None

    def _give_up(self, why: str) -> None:
        """Have the trials that are under way saved, start no others, and say why."""
        self._gave_up = self._gave_up or SearchError(why)

    def _start_trials(self) -> bool:
        """Start as many trials as may be; returns whether any was."""
        begun = False
        while not self._ends_early and self._free:
            waiting = [trial for trial in self._progress.open if trial.number not in self._jobs]
            if not waiting:
                break
            self._start(waiting[0])
            begun = True
        return begun

    def _start(self, trial: Trial) -> None:
        try:
            run = run_folder_of(self._progress.search, self._folder, trial)
        except SettingsError as error:
            self._take(Ended(trial.number, Ending.INVALID, str(error)))
            return
        saved = self._catch_up(trial, run)
        judged = max(trial.values, default=-1)
        if trial.verdict is not Verdict.GO_ON and saved == judged:
            self._take(Ended(trial.number, _ENDINGS[trial.verdict]))
            return
        try:
            self._ledger.same_data()
        except (DataError, FolderError) as error:
            self._give_up(str(error))
            return
        Verdicts(run.verdicts).give(judged, stop=trial.verdict is not Verdict.GO_ON)
        environment = self._free.pop(0)
        job = Job(self._program, self._folder.lock, run, environment, judged=judged)
        self._jobs[trial.number] = (job, environment)
        self._observer.begun(self._progress, trial)

    def _catch_up(self, trial: Trial, run: RunFolder) -> int:
        """Hear of what a search that was killed did not; what lies beyond the latest checkpoint
        will be reported again.

        :returns: the steps of that checkpoint.
        """
        saved = _saved(run)
        for report in list(validations_of(run)):
            if max(trial.values, default=-1) < report["steps_completed"] <= saved:
                self._take(self._validated(trial.number, report))
        return saved

    def _look_after(self, number: int) -> bool:
        """Hear of a trial under way; returns whether there was anything."""
        job, environment = self._jobs[number]
        status = job.poll()  # first: a process that has ended reports no more
        heard = False
        for report in job.validations():
            self._take(self._validated(number, report))
            verdict = self._progress.trials[number].verdict
            job.judge(report["steps_completed"], stop=verdict is not Verdict.GO_ON)
            heard = True
        if status is None:
            return heard
        del self._jobs[number]
        self._free.append(environment)
        if (ended := self._ended(number, job, status)) is not None:
            self._take(ended)
        return True

    def _ended(self, number: int, job: Job, status: int) -> Ended | None:
        """How the process of a trial ended; None if it has to go on another time.

        One that was judged to end has done so in order, whatever its status, if it left the
        checkpoint of the validation that was judged.
        """
        trial = self._progress.trials[number]
        if trial.verdict is not Verdict.GO_ON and _saved(job.run) == trial.steps:
            return Ended(number, _ENDINGS[trial.verdict])
        if trial.verdict is Verdict.GO_ON and status == 0:
            return Ended(number, Ending.COMPLETED)
        if status == REFUSED:
            self._give_up(f"trial {number}: {job.last_words}")
        if self._ends_early:
            return None
        if (why := job.invalid_because) is not None:
            return Ended(number, Ending.INVALID, why)
        killed = f"ended by {signal.Signals(-status).name}" if status < 0 else None
        return Ended(number, Ending.FAILED, killed or job.last_words)

    def _validated(self, number: int, report: Mapping[str, Any]) -> Validated:
        searcher, metrics = self._progress.search.searcher, report["metrics"]
        unit = searcher.time_metric if isinstance(searcher, HalvingSearcher) else "batches"
        steps = report["steps_completed"]
        return Validated(number, steps, int(metrics[unit]), metrics[searcher.metric])

    def _take(self, event: Event) -> None:
        self._ledger.record(event)
        self._progress.take(event)
        self._ledger.follow(self._progress, event)
        self._observer.heard(self._progress, event)
        if isinstance(event, Ended) and event.ending is Ending.INVALID:
            self._give_up_if_none_is_valid(event)

    def _give_up_if_none_is_valid(self, event: Ended) -> None:
        count = self._progress.invalid_in_a_row
        if count >= INVALID_IN_A_ROW and replaces_invalid(self._progress.search):
            self._give_up(
                f"{count} trials in a row were invalid, the last because {event.reason}; "
                "change the space"
            )


def _saved(run: RunFolder) -> int:
    """Steps of the latest checkpoint; -1: there is none."""
    return max((checkpoint.steps for checkpoint in run.checkpoints()), default=-1)


_ENDINGS: Final = {Verdict.STOP: Ending.STOPPED, Verdict.TOP: Ending.COMPLETED}
