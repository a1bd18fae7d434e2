"""A search's loop over processes: its end, its kills, its failures."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from natdgp.checkpoint.checksums import RECORD_NAME
from natdgp.run.process_lock import ProcessLock
from natdgp.search.event_log import EventLog
from natdgp.search.runner import INVALID_IN_A_ROW, Runner, experiment_of, run_folder_of
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_session import PATIENCE, write_leaderboard
from natdgp.search.search_state import Event, SearchState, Trial
from natdgp.settings import Experiment, Search, SettingsError, read_search
from natdgp.settings.problems import Problem
from tests.unit.search.conftest import RANDOM, Write, claimed

pytestmark = pytest.mark.usefixtures("_stand_in")


class Watched(Runner):
    """Notes which trials began, and may act on what was heard, or when nothing was."""

    def __init__(self, folder: SearchFolder, jobs: int = 1) -> None:
        self.begun_trials: list[int] = []
        self.on_event: Callable[[Event], None] = lambda _: None
        self.on_pause: Callable[[], None] = lambda: None
        self.folder = folder
        runner = self

        class Log(EventLog):
            def take(self, event: Event) -> None:
                super().take(event)
                runner.on_event(event)

        log = Log(folder, read_search(folder.config))
        super().__init__(log, folder, [{"JOB": str(n)} for n in range(jobs)], self._note)

    def _note(self, trial: Trial | None) -> None:
        if trial is None:
            self.on_pause()
        elif trial.ending is None:
            self.begun_trials.append(trial.number)

    def run(self) -> None:
        """Search from where the folder stands, as the command does."""
        lock = ProcessLock(self.folder.lock)
        assert lock.hold(PATIENCE)
        try:
            super().run()
        finally:
            lock.release()
        write_leaderboard(self.folder, self.state)


def events_of(folder: SearchFolder) -> list[str]:
    """What is remembered, but for the line that says of which search."""
    return folder.events.read_text().splitlines()[1:]


def go_on(folder: SearchFolder, jobs: int = 1) -> SearchState:
    """Search to the end."""
    runner = Watched(folder, jobs)
    runner.run()
    assert runner.failure is None
    return runner.state


def killed_after(folder: SearchFolder, events: int, seconds: float, jobs: int = 1) -> int:
    """Search in a process that is killed some time after so many more events.

    :returns: how many events were remembered in all.
    """
    child = os.fork()
    if child == 0:
        heard = itertools.count(1)

        def kill() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def count(event: Event) -> None:
            if next(heard) == events:
                threading.Timer(seconds, kill).start()

        try:
            runner = Watched(folder, jobs)
            runner.on_event = count
            runner.run()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return len(events_of(folder))


def refuse(monkeypatch: pytest.MonkeyPatch, is_wrong: Callable[[Trial], bool]) -> None:
    """Make the points of some trials none that can be trained."""

    def experiment(search: Search, trial: Trial) -> Experiment:
        if is_wrong(trial):
            raise SettingsError([Problem("a.b", 3, "is wrong", "mend it")])
        return experiment_of(search, trial)

    monkeypatch.setattr("natdgp.search.runner.experiment_of", experiment)


def test_a_search_killed_at_20_random_moments_ends_as_one_that_ran_through(
    search_of: Write, tmp_path: Path
) -> None:
    search = search_of()
    straight = claimed(tmp_path / "straight", search)
    expected = go_on(straight)
    assert {trial.ending for trial in expected.trials} == {
        TrialEnding.COMPLETED,
        TrialEnding.STOPPED,
    }

    broken, moments = claimed(tmp_path / "broken", search), random.Random(3)
    at = [killed_after(broken, moments.randint(1, 5), moments.uniform(0, 0.02)) for _ in range(20)]
    go_on(broken)
    assert broken.leaderboard.read_text() == straight.leaderboard.read_text()
    events = [events_of(folder) for folder in (straight, broken)]
    assert events[0] == events[1]
    third = len(events[0]) / 3
    assert {int(count / third) for count in at if count < len(events[0])} == {0, 1, 2}, at
    starts = [(broken.trial(t.number) / "starts").read_text() for t in expected.trials]
    assert sum(len(each.split()) - 1 for each in starts) > 10, "many trials were interrupted"


def test_a_result_that_a_killed_search_did_not_hear_of_is_heard_before_its_trial_goes_on(
    folder: SearchFolder, search: Search
) -> None:
    """A trial that goes on from a checkpoint does not report again what lies before it."""
    run = run_folder_of(search, folder, SearchState(search).trials[0])
    report = {"val_nlpd": 9.5, "batches": 2}
    entry = {"group": "validation", "steps_completed": 2, "metrics": report}
    run.metrics.write_text(json.dumps(entry) + "\n")
    run.checkpoint(2).path.mkdir(parents=True)
    (run.checkpoint(2).path / RECORD_NAME).touch()
    assert go_on(folder).trials[0].values.keys() == {2, 4, 6}


def test_a_validation_before_the_first_step_is_heard(search_of: Write, tmp_path: Path) -> None:
    folder = claimed(tmp_path / "search", search_of(searcher=RANDOM, description="initial"))
    assert [trial.values.keys() for trial in go_on(folder).trials] == [{0, 2, 4, 6}] * 4


def test_several_jobs_killed_and_resumed_lose_and_repeat_nothing(
    search_of: Write, tmp_path: Path
) -> None:
    folder, moments = claimed(tmp_path / "search", search_of()), random.Random(4)
    ended: set[int] = set()
    for _ in range(5):
        killed_after(folder, moments.randint(4, 10), moments.uniform(0, 0.02), jobs=3)
        trials = EventLog(folder, search_of()).state.trials
        assert ended <= {trial.number for trial in trials if trial.ending is not None}
        ended = {trial.number for trial in trials if trial.ending is not None}
        before = {n: (folder.trial(n) / "metrics.jsonl").read_bytes() for n in ended}
    runner = Watched(folder, jobs=3)
    runner.run()
    assert not ended & set(runner.begun_trials)
    assert all((folder.trial(n) / "metrics.jsonl").read_bytes() == before[n] for n in ended)
    assert len(runner.state.trials) == 12
    assert not runner.state.open


def test_jobs_are_under_way_at_once_and_share_what_there_is(folder: SearchFolder) -> None:
    runner, most = Watched(folder, jobs=2), 0

    def count() -> None:
        nonlocal most
        most = max(most, len(runner.jobs))
        assert len({job.environment["JOB"] for job in runner.jobs}) == len(runner.jobs)

    runner.on_pause = count
    runner.run()
    assert most == 2
    assert runner.begun_trials == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ("invalid", "gamma is too long"),
        ("failed", "ValueError: of its own"),
        ("killed", "ended by SIGKILL"),
        ("exits", "of its own accord"),  # with the status of a command that was misused
    ],
)
def test_a_trial_that_cannot_be_trained_counts_as_such_and_the_search_goes_on(
    search_of: Write, tmp_path: Path, description: str, reason: str
) -> None:
    search = search_of(searcher={**RANDOM, "max_trials": 8}, description=description)
    ending = TrialEnding.INVALID if description == "invalid" else TrialEnding.FAILED
    state = go_on(claimed(tmp_path / "search", search), jobs=2)
    wrong = [trial for trial in state.trials if trial.ending is ending]
    assert wrong
    assert {trial.reason for trial in wrong} == {reason}
    completed = [trial for trial in state.trials if trial.ending is TrialEnding.COMPLETED]
    assert len(completed) == (8 if ending is TrialEnding.INVALID else 8 - len(wrong))
    assert state.ranked()[-1] in wrong


def test_a_trial_that_was_judged_to_end_and_could_not_save_has_failed(
    search_of: Write, tmp_path: Path
) -> None:
    """One that validates at its end is judged to be at the top before it saves."""
    state = go_on(claimed(tmp_path / "search", search_of(description="full")))
    assert {trial.to_end for trial in state.trials} == {TrialEnding.STOPPED, TrialEnding.COMPLETED}
    for trial in state.trials:
        assert (trial.ending, trial.reason) == (TrialEnding.FAILED, "no space left")


def test_points_that_are_no_settings_are_invalid_without_a_process(
    folder: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a space of nothing else ends the search."""
    refuse(monkeypatch, lambda trial: trial.number > 0)
    runner = Watched(folder)
    runner.run()
    assert runner.begun_trials == [0]
    assert runner.state.trials[1].ending is TrialEnding.INVALID
    assert "a.b: received 3; is wrong" in str(runner.state.trials[1].reason)
    assert f"{INVALID_IN_A_ROW} trials in a row were invalid" in str(runner.failure)
    assert "a.b: received 3; is wrong" in str(runner.failure)


def test_a_grid_has_all_its_points_tried_however_many_are_invalid(
    search_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, lambda trial: trial.number <= INVALID_IN_A_ROW)
    count = INVALID_IN_A_ROW + 2
    rates = {"type": "double", "minval": 0.001, "maxval": 0.1, "count": count}
    searcher = {"name": "grid", "metric": "val_nlpd", "max_length": {"batches": 6}}
    hyperparameters = {"global_batch_size": 32, "adam": {"learning_rate": rates}}
    search = search_of(searcher=searcher, hyperparameters=hyperparameters)
    endings = [trial.ending for trial in go_on(claimed(tmp_path / "search", search)).trials]
    assert endings == [TrialEnding.INVALID] * (count - 1) + [TrialEnding.COMPLETED]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_request_that_is_wrong_ends_the_search_with_its_words_and_the_others_saved(
    search_of: Write, tmp_path: Path, jobs: int
) -> None:
    description = "refused beside another" if jobs > 1 else "refused"
    folder = claimed(tmp_path / "search", search_of(searcher=RANDOM, description=description))
    runner = Watched(folder, jobs)
    runner.run()
    assert runner.failure == "trial 0: waves.csv: no such file"
    events = list(map(json.loads, events_of(folder)))
    assert [(event["event"], event["trial"], event["steps"]) for event in events] == [
        ("validated", 1, 2)
    ][: jobs - 1]
    saved = folder.trial(1) / "checkpoints" / "step-00000002" / RECORD_NAME
    assert saved.is_file() is (jobs > 1)


def test_an_interrupted_search_is_gone_on_with_where_it_was(
    folder: SearchFolder, search: Search, tmp_path: Path
) -> None:
    straight = claimed(tmp_path / "straight", search)
    go_on(straight)
    runner = Watched(folder)

    def at_trial_1(event: Event) -> None:
        if event["trial"] == 1 and runner.signal is None:
            runner.interrupt(signal.SIGINT)

    runner.on_event = at_trial_1
    runner.run()
    assert runner.signal is signal.SIGINT
    assert runner.begun_trials == [0, 1]
    go_on(folder)
    assert folder.leaderboard.read_text() == straight.leaderboard.read_text()
