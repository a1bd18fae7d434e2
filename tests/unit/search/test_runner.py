"""A search's loop over processes: its end, its kills, its failures."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natdgp.run.process_lock import ProcessLock
from natdgp.run.run_folder import write_yaml
from natdgp.search.event_log import EventLog
from natdgp.search.job import experiment_of, run_folder_of
from natdgp.search.runner import INVALID_IN_A_ROW, Runner
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_report import write_leaderboard
from natdgp.search.search_session import PATIENCE
from natdgp.search.search_state import (
    SearchEvent,
    SearchState,
    Trial,
    TrialStarted,
)
from natdgp.settings import Experiment, Search, SettingsError, read_search
from natdgp.settings.problems import Problem
from tests.conftest import REPOSITORY
from tests.unit.search.conftest import RANDOM, Write
from tests.unit.search.made_up import RECORD

STAND_IN = (sys.executable, "-m", "tests.unit.search.stand_in")


class Notes:
    """Notes which trials began, and may act on what is heard, or when nothing is."""

    def __init__(self) -> None:
        self.begun_trials: list[int] = []
        self.on_event: Callable[[SearchEvent], None] = lambda _: None
        self.on_pause: Callable[[], None] = lambda: None

    def __call__(self, event: SearchEvent | TrialStarted | None) -> None:
        if event is None:
            self.on_pause()
        elif isinstance(event, TrialStarted):
            self.begun_trials.append(event.trial)
        else:
            self.on_event(event)


@pytest.fixture(autouse=True)
def _program_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{REPOSITORY}/src")
    monkeypatch.setattr("natdgp.search.runner.PAUSE", 0.002)


def claim(root: Path, search: Search) -> SearchFolder:
    folder = SearchFolder.create(root, "waves")
    write_yaml(folder.config, search.config)
    return folder


def events_of(folder: SearchFolder) -> list[str]:
    """What is remembered, but for the line that says of which search."""
    return folder.events.read_text().splitlines()[1:]


def run_in(
    folder: SearchFolder,
    jobs: int = 1,
    notes: Notes | None = None,
    act: Callable[[Runner], None] = lambda _: None,
) -> Runner:
    """Search from where the folder stands, as the command does."""
    lock = ProcessLock(folder.lock)
    assert lock.hold(PATIENCE)
    log = EventLog(folder, read_search(folder.config))
    environments = [{"JOB": str(number)} for number in range(jobs)]
    runner = Runner(log, folder, environments, notes or Notes(), STAND_IN)
    act(runner)
    try:
        runner.run()
    finally:
        lock.release()
    write_leaderboard(folder, runner.state)
    return runner


def go_on(folder: SearchFolder, jobs: int = 1, notes: Notes | None = None) -> SearchState:
    """The same for a search that can be run to its end."""
    runner = run_in(folder, jobs, notes)
    assert runner.failure is None
    return runner.state


def killed_after(folder: SearchFolder, events: int, seconds: float, jobs: int = 1) -> int:
    """Search in a process that is killed some time after so many more events.

    :returns: how many events were remembered in all.
    """
    child = os.fork()
    if child == 0:
        notes, heard = Notes(), itertools.count(1)

        def kill() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def count(event: SearchEvent) -> None:
            if next(heard) == events:
                threading.Timer(seconds, kill).start()

        notes.on_event = count
        try:
            go_on(folder, jobs, notes)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return len(events_of(folder))


def test_a_search_killed_at_20_random_moments_ends_as_one_that_ran_through(
    search_of: Write, tmp_path: Path
) -> None:
    search = search_of()
    straight = claim(tmp_path / "straight", search)
    expected = go_on(straight)
    assert {trial.ending for trial in expected.trials} == {
        TrialEnding.COMPLETED,
        TrialEnding.STOPPED,
    }

    broken, moments = claim(tmp_path / "broken", search), random.Random(3)
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
    search_of: Write, tmp_path: Path
) -> None:
    """A trial that goes on from a checkpoint does not report again what lies before it."""
    folder = claim(tmp_path / "search", search_of(searcher=RANDOM))
    search = read_search(folder.config)
    run = run_folder_of(search, folder, SearchState(search).trials[0])
    report = {"val_nlpd": 9.5, "batches": 2}
    entry = {"group": "validation", "steps_completed": 2, "metrics": report}
    run.metrics.write_text(json.dumps(entry) + "\n")
    run.checkpoint(2).path.mkdir(parents=True)
    (run.checkpoint(2).path / RECORD).touch()
    assert go_on(folder).trials[0].values.keys() == {2, 4, 6}


def test_a_validation_before_the_first_step_is_heard(search_of: Write, tmp_path: Path) -> None:
    folder = claim(tmp_path / "search", search_of(searcher=RANDOM, description="initial"))
    assert [trial.values.keys() for trial in go_on(folder).trials] == [{0, 2, 4, 6}] * 4


def test_several_jobs_killed_and_resumed_lose_and_repeat_nothing(
    search_of: Write, tmp_path: Path
) -> None:
    folder, moments = claim(tmp_path / "search", search_of()), random.Random(4)
    ended: set[int] = set()
    for _ in range(5):
        killed_after(folder, moments.randint(4, 10), moments.uniform(0, 0.02), jobs=3)
        trials = EventLog(folder, search_of()).state.trials
        assert ended <= {trial.number for trial in trials if trial.ending is not None}
        ended = {trial.number for trial in trials if trial.ending is not None}
        before = {n: (folder.trial(n) / "metrics.jsonl").read_bytes() for n in ended}
    notes = Notes()
    state = go_on(folder, jobs=3, notes=notes)
    assert not ended & set(notes.begun_trials)
    assert all((folder.trial(n) / "metrics.jsonl").read_bytes() == before[n] for n in ended)
    assert len(state.trials) == 12
    assert not state.open


def test_jobs_are_under_way_at_once_and_share_what_there_is(
    search_of: Write, tmp_path: Path
) -> None:
    folder = claim(tmp_path / "search", search_of(searcher=RANDOM))
    most, notes = 0, Notes()

    def watch(runner: Runner) -> None:
        def count() -> None:
            nonlocal most
            most = max(most, len(runner.jobs))
            assert len({job.environment["JOB"] for job in runner.jobs.values()}) == len(runner.jobs)

        notes.on_pause = count

    run_in(folder, 2, notes, watch)
    assert most == 2
    assert notes.begun_trials == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("ending", "reason"),
    [(TrialEnding.INVALID, "gamma is too long"), (TrialEnding.FAILED, "ValueError: of its own")],
)
def test_a_trial_that_cannot_be_trained_counts_as_such_and_the_search_goes_on(
    search_of: Write, tmp_path: Path, ending: TrialEnding, reason: str
) -> None:
    search = search_of(searcher={**RANDOM, "max_trials": 8}, description=ending.value)
    state = go_on(claim(tmp_path / "search", search), jobs=2)
    wrong = [trial for trial in state.trials if trial.ending is ending]
    assert wrong
    assert {trial.reason for trial in wrong} == {reason}
    completed = [trial for trial in state.trials if trial.ending is TrialEnding.COMPLETED]
    assert len(completed) == (8 if ending is TrialEnding.INVALID else 8 - len(wrong))
    assert state.ranked()[-1] in wrong


def test_a_trial_that_is_killed_by_another_hand_counts_as_failed(
    search_of: Write, tmp_path: Path
) -> None:
    notes = Notes()
    folder = claim(tmp_path / "search", search_of(searcher=RANDOM, description="killed"))
    state = go_on(folder, notes=notes)
    killed = [trial for trial in state.trials if trial.ending is TrialEnding.FAILED]
    assert killed
    assert {trial.reason for trial in killed} == {"ended by SIGKILL"}


def test_a_trial_that_was_judged_to_end_and_could_not_save_has_failed(
    search_of: Write, tmp_path: Path
) -> None:
    """One that validates at its end is judged to be at the top before it saves."""
    state = go_on(claim(tmp_path / "search", search_of(description="full")))
    assert {trial.to_end for trial in state.trials} == {TrialEnding.STOPPED, TrialEnding.COMPLETED}
    for trial in state.trials:
        assert (trial.ending, trial.reason) == (TrialEnding.FAILED, "no space left")


def test_a_point_that_is_no_settings_is_invalid_without_a_process(
    search_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(search: Search, trial: Trial) -> Experiment:
        if trial.number == 1:
            raise SettingsError([Problem("a.b", 3, "is wrong", "mend it")])
        return experiment_of(search, trial)

    monkeypatch.setattr("natdgp.search.job.experiment_of", refuse)
    notes = Notes()
    state = go_on(claim(tmp_path / "search", search_of(searcher=RANDOM)), notes=notes)
    assert state.trials[1].ending is TrialEnding.INVALID
    assert "a.b: received 3; is wrong" in str(state.trials[1].reason)
    assert notes.begun_trials == [0, 2, 3, 4]


def test_a_space_without_a_valid_point_ends_the_search(
    search_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise SettingsError([Problem("a.b", 3, "is wrong", "mend it")])

    monkeypatch.setattr("natdgp.search.job.experiment_of", refuse)
    folder = claim(tmp_path / "search", search_of(searcher=RANDOM))
    failure = run_in(folder).failure
    assert f"{INVALID_IN_A_ROW} trials in a row were invalid" in str(failure)
    assert "a.b: received 3; is wrong" in str(failure)


def test_a_grid_has_all_its_points_tried_however_many_are_invalid(
    search_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(search: Search, trial: Trial) -> Experiment:
        if trial.number <= INVALID_IN_A_ROW:
            raise SettingsError([Problem("a.b", 3, "is wrong", "mend it")])
        return experiment_of(search, trial)

    monkeypatch.setattr("natdgp.search.job.experiment_of", refuse)
    count = INVALID_IN_A_ROW + 2
    rates = {"type": "double", "minval": 0.001, "maxval": 0.1, "count": count}
    searcher = {"name": "grid", "metric": "val_nlpd", "max_length": {"batches": 6}}
    hyperparameters = {"global_batch_size": 32, "adam": {"learning_rate": rates}}
    search = search_of(searcher=searcher, hyperparameters=hyperparameters)
    endings = [trial.ending for trial in go_on(claim(tmp_path / "search", search)).trials]
    assert endings == [TrialEnding.INVALID] * (count - 1) + [TrialEnding.COMPLETED]


def test_a_request_that_is_wrong_ends_the_search_with_its_words(
    search_of: Write, tmp_path: Path
) -> None:
    folder = claim(tmp_path / "search", search_of(searcher=RANDOM, description="refused"))
    assert run_in(folder).failure == "trial 0: waves.csv: no such file"
    assert not events_of(folder)


def test_a_request_that_is_wrong_has_the_other_trials_saved(
    search_of: Write, tmp_path: Path
) -> None:
    search = search_of(searcher=RANDOM, description="refused beside another")
    folder = claim(tmp_path / "search", search)
    assert run_in(folder, jobs=2).failure == "trial 0: waves.csv: no such file"
    assert (folder.trial(1) / "checkpoints" / "step-00000002" / RECORD).is_file()
    (event,) = map(json.loads, events_of(folder))
    assert (event["event"], event["trial"], event["steps"]) == ("validated", 1, 2)


def test_a_trial_that_exits_as_one_that_is_misused_has_failed(
    search_of: Write, tmp_path: Path
) -> None:
    folder = claim(tmp_path / "search", search_of(searcher=RANDOM, description="exits"))
    failed = [trial for trial in go_on(folder).trials if trial.ending is TrialEnding.FAILED]
    assert {trial.reason for trial in failed} == {"of its own accord"}


def test_an_interrupted_search_is_gone_on_with_where_it_was(
    search_of: Write, tmp_path: Path
) -> None:
    straight = claim(tmp_path / "straight", search_of(searcher=RANDOM))
    go_on(straight)
    folder = claim(tmp_path / "search", search_of(searcher=RANDOM))
    notes = Notes()

    def interrupt(runner: Runner) -> None:
        def at_trial_1(event: SearchEvent) -> None:
            if event.trial == 1 and runner.signal is None:
                runner.interrupt(signal.SIGINT)

        notes.on_event = at_trial_1

    assert run_in(folder, notes=notes, act=interrupt).signal is signal.SIGINT
    assert notes.begun_trials == [0, 1]
    go_on(folder)
    assert folder.leaderboard.read_text() == straight.leaderboard.read_text()
