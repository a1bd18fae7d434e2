"""The search from the user's side: what it says, and what it leaves behind."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from natdgp.checkpoint.checksums import RECORD_NAME
from natdgp.run.process_lock import ProcessLock
from natdgp.run.run_folder import FolderError
from natdgp.search import search_session
from natdgp.search.search_display import SearchDisplay
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_session import new_search, report_search, search_and_report
from natdgp.search.search_state import SearchState, Trial, ended, validated
from natdgp.settings import Search
from tests.conftest import REPOSITORY, fill
from tests.unit.search.conftest import CONFIG, CSV, EVENTS, RANDOM, Write, state_after

pytestmark = pytest.mark.usefixtures("_stand_in")


def _report(folder: SearchFolder, act: Callable[[Trial], None] | None = None) -> tuple[int, str]:
    """:param act: is told of trials that begin or have ended, once the display has shown them."""

    class Acting(SearchDisplay):
        def show(self, trial: Trial | None) -> None:
            super().show(trial)
            if trial is not None and act is not None:
                act(trial)

    console = Console(file=io.StringIO(), width=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_session, "SearchDisplay", Acting)
        status = search_and_report(console, folder, [{}], live=False)
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


def test_a_search_says_what_it_costs_and_ends_with_its_best(folder: SearchFolder) -> None:
    status, screen = _report(folder)
    assert status == 0
    assert "random: 4 trials, 24 steps at most. An estimate of time follows" in screen
    assert "4 trials (4 completed), 24 steps" in screen
    assert "best.yaml         the best trial: natdgp train " in screen
    leaderboard = folder.leaderboard.read_text()

    status, screen = _report(folder)
    assert status == 0
    assert "Going on with" in screen
    assert "4 have ended already" in screen

    # A damaged memory is told, and made anew from what the trials saved.
    folder.events.write_text("no JSON\n")
    with pytest.raises(FolderError, match=r"events\.jsonl cannot be read \(.*\); move it away"):
        _report(folder)
    folder.events.unlink()
    assert _report(folder)[0] == 0
    assert folder.leaderboard.read_text() == leaderboard


def test_one_trial_is_told_of_as_one(search_of: Write, tmp_path: Path) -> None:
    search = search_of(searcher={**RANDOM, "max_trials": 1})
    _, screen = _report(new_search(search, REPOSITORY, tmp_path / "mine"))
    assert "random: 1 trial, 6 steps at most" in screen
    assert "1 of 1 trial, " in screen
    assert "1 trial (1 completed), 6 steps" in screen


def test_an_interruption_saves_and_tells_the_way_on(folder: SearchFolder) -> None:
    status, screen = _report(folder, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert status == 128 + signal.SIGTERM
    way_on = f"natdgp search --resume {folder.root}"
    assert f"SIGTERM; everything is saved. Go on with:\n  {way_on}" in screen
    assert folder.database.is_file()


def test_a_folder_is_searched_by_one_process_at_a_time(
    folder: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_session, "PATIENCE", 0.0)
    other = ProcessLock(folder.lock)
    assert other.hold()
    with pytest.raises(FolderError, match="is being searched by another process"):
        _report(folder)
    other.release()


def test_the_folder_holds_what_the_search_needs_from_elsewhere(
    search_of: Write, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(REPOSITORY / "trials", source / "trials")
    (source / "table.csv").write_text("x,y\n1,2\n")
    entrypoint = "python3 -m determined.launch.horovod --trial trials.deep_gp:DeepGPTrial"
    folder = new_search(search_of(data=CSV, entrypoint=entrypoint), source, tmp_path / "mine")
    config = YAML(typ="safe").load(folder.config)
    assert config["data"]["path"] == str(source / "table.csv")
    assert config["hyperparameters"] == CONFIG["hyperparameters"]
    assert (folder.code / "trials" / "deep_gp.py").is_file()


def test_data_that_change_between_trials_end_the_search(search_of: Write, tmp_path: Path) -> None:
    """Or the leaderboard would compare figures on other rows."""
    table = tmp_path / "table.csv"
    table.write_text("x,y\n1,2\n")

    def change(trial: Trial) -> None:
        if trial.ending is not None:
            table.write_text("x,y\n1,3\n")

    folder = new_search(search_of(searcher=RANDOM, data=CSV), tmp_path, tmp_path / "mine")
    status, screen = _report(folder, change)
    assert status == 1
    assert "The search cannot go on: the data changed since the search began" in screen
    with pytest.raises(FolderError, match="bring the former data back"):
        _report(folder)

    table.write_text("x,y\n1,2\n")
    status, screen = _report(folder)
    assert (status, "1 have ended already" in screen) == (0, True)


def test_a_disk_that_fills_in_the_middle_ends_the_search_with_the_way_on(
    search: Search, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(trial: Trial) -> None:
        if trial.number == 1 and trial.ending is not None:
            fill(small_disk)

    folder = new_search(search, REPOSITORY, small_disk / "mine")
    # The library of the plots alone would fill the disk.
    monkeypatch.setattr("natdgp.search.optuna_study._figures", lambda *_: {})
    status, screen = _report(folder, fill_up)
    assert status == 1
    assert "The search cannot go on: " in screen
    assert " cannot be written: " in screen
    assert (
        f"\nOnce that can be written, go on with:\n  natdgp search --resume {folder.root}" in screen
    )

    (small_disk / "ballast").unlink()
    status, screen = _report(folder)
    assert status == 0, screen
    fill(small_disk)
    status, screen = _report(folder)  # which has only its outcome to write
    assert status == 1
    assert " cannot be written: No space left on device\nOnce that" in screen


def _conclude(
    folder: SearchFolder, state: SearchState, saved: dict[int, tuple[int, ...]] | None = None
) -> tuple[bool, str]:
    """:param saved: steps of each trial's checkpoints; by default, all that were validated."""
    for trial in state.trials:
        run = folder.trial(trial.number)
        run.mkdir()
        (run / "config.yaml").write_text(f"name: trial-{trial.number}\n")
        for steps in trial.values if saved is None else saved.get(trial.number, ()):
            checkpoint = run / "checkpoints" / f"step-{steps:08d}"
            checkpoint.mkdir(parents=True)
            (checkpoint / RECORD_NAME).touch()
    console = Console(file=io.StringIO(), width=200)
    found = report_search(console, folder, state)
    assert isinstance(console.file, io.StringIO)
    return found, console.file.getvalue()


def test_the_leaderboard_has_the_best_first_and_the_best_trial_is_at_hand(
    folder: SearchFolder, search: Search
) -> None:
    found, screen = _conclude(folder, state_after(search, EVENTS))
    assert found
    with folder.leaderboard.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["val_nlpd"], row["state"]) for row in rows] == [
        ("2", "1.0", "completed"),
        ("4", "1.0", "completed"),
        ("0", "3.5", "completed"),
        ("1", "", "invalid"),
        ("3", "", "failed"),
    ]
    best = rows[0]
    assert (best["rank"], best["at_step"], best["folder"]) == ("1", "6", "trials/trial-0002")
    point = SearchState(search).trials[2].point
    assert float(best["natural_gradient.gamma"]) == point["natural_gradient"]["gamma"]
    assert rows[3]["reason"] == "gamma is too long"
    assert "5 trials (3 completed, 1 invalid, 1 failed), 14 steps" in screen
    assert "Best: trial 2, val_nlpd 1.0000 after step 6" in screen
    assert "No checkpoint is left" not in screen
    assert YAML(typ="safe").load(folder.best_config) == {"name": "trial-2"}
    assert folder.best.resolve() == folder.trial(2) / "checkpoints" / "step-00000006"


@pytest.mark.parametrize(
    ("saved", "trial", "steps", "value"),
    [
        ({0: (2, 6), 4: (2,)}, 4, 2, "1.0000"),
        ({0: (6,), 2: (2,)}, 2, 2, "1.2500"),
        ({0: (6,), 2: (4,)}, 0, 6, "3.7500"),
    ],
)
def test_the_best_trial_is_one_with_a_checkpoint_of_its_value(
    folder: SearchFolder,
    search: Search,
    saved: dict[int, tuple[int, ...]],
    trial: int,
    steps: int,
    value: str,
) -> None:
    found, screen = _conclude(folder, state_after(search, EVENTS), saved)
    assert found
    assert YAML(typ="safe").load(folder.best_config) == {"name": f"trial-{trial}"}
    checkpoint = folder.trial(trial) / "checkpoints" / f"step-{steps:08d}"
    assert folder.best.resolve(strict=True) == checkpoint
    assert f"Best: trial {trial}, val_nlpd {value} after step {steps}: " in screen
    assert "No checkpoint is left of trial 2, val_nlpd 1.0000 after step 6." in screen


@pytest.mark.parametrize("events", [EVENTS, [ended(0, TrialEnding.FAILED, "ValueError")]])
def test_a_search_without_a_checkpoint_or_a_value_says_so(
    folder: SearchFolder, search: Search, events: list[dict[str, Any]]
) -> None:
    found, screen = _conclude(folder, state_after(search, events), saved={})
    assert not found
    assert "No trial left a checkpoint with a value" in screen
    assert not folder.best.is_symlink()
    assert not folder.best_config.exists()


def test_trials_that_never_began_are_told(folder: SearchFolder, search_of: Write) -> None:
    """As in Determined, a trial that ends of itself has no successor in a halving search."""
    completed = (ended(n, TrialEnding.COMPLETED) for n in range(4))
    events = [event for n in range(4) for event in (validated(n, 2, 2, 2.0 - n), next(completed))]
    state = state_after(search_of(), events)
    assert not state.open
    _, screen = _conclude(folder, state)
    assert "8 trials never began: halving begins one where another is stopped or fails" in screen


@pytest.mark.parametrize("name", ["random", "grid"])
def test_invalid_trials_are_none_that_never_began(
    folder: SearchFolder, search_of: Write, name: str
) -> None:
    searcher: dict[str, Any] = {"metric": "val_nlpd", "max_length": {"batches": 6}}
    searcher |= {"name": name, **({"max_trials": 4} if name == "random" else {})}
    batches = {"type": "categorical", "vals": [32, 64, 96, 128]}
    search = search_of(searcher=searcher, hyperparameters={"global_batch_size": batches})
    state = state_after(search, [ended(0, TrialEnding.INVALID, "why")])
    while state.open:
        number = state.open[0].number
        state.take(validated(number, 6, 6, 1.0 + number))
        state.take(ended(number, TrialEnding.COMPLETED))
    _, screen = _conclude(folder, state)
    assert "1 invalid" in screen
    assert "never began" not in screen
