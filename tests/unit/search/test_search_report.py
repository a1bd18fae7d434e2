"""What a search leaves behind: leaderboard, page and best trial."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_report import report_search
from natdgp.search.search_state import SearchState, TrialEnded, TrialValidated
from natdgp.settings import Search
from tests.unit.search.conftest import EVENTS, RANDOM, Write, state_after
from tests.unit.search.made_up import RECORD


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
            (checkpoint / RECORD).touch()
    console = Console(file=io.StringIO(), width=200)
    found = report_search(console, folder, state)
    assert isinstance(console.file, io.StringIO)
    return found, console.file.getvalue()


def test_the_leaderboard_has_the_best_first_and_those_without_a_value_last(
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


def test_the_best_trial_is_at_hand(folder: SearchFolder, search: Search) -> None:
    _conclude(folder, state_after(search, EVENTS))
    assert YAML(typ="safe").load(folder.best_config) == {"name": "trial-2"}
    assert folder.best.resolve() == folder.trial(2) / "checkpoints" / "step-00000006"


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_no_number_is_never_the_best(search: Search, value: float) -> None:
    state = state_after(search, (TrialValidated(0, 2, 2, value), *EVENTS[1:]))
    assert state.best_of(state.trials[0]) == (6, 3.75)
    state = state_after(search, (TrialValidated(0, 2, 2, value), *EVENTS[3:]))
    assert [trial.number for trial in state.ranked()][:3] == [2, 4, 0]


@pytest.mark.parametrize(
    ("saved", "trial", "steps", "words"),
    [
        ({0: (2, 6), 4: (2,)}, 4, 2, "trial 4, val_nlpd 1.0000 after step 2: "),
        ({0: (6,), 2: (2,)}, 2, 2, "trial 2, val_nlpd 1.2500 after step 2: "),
        ({0: (6,)}, 0, 6, "trial 0, val_nlpd 3.7500 after step 6: "),
        ({0: (4,)}, 0, 4, "trial 0, val_nlpd 3.5000 after step 2 (its checkpoint is of step 4): "),
    ],
)
def test_the_best_trial_is_one_with_a_checkpoint(
    folder: SearchFolder,
    search: Search,
    saved: dict[int, tuple[int, ...]],
    trial: int,
    steps: int,
    words: str,
) -> None:
    found, screen = _conclude(folder, state_after(search, EVENTS), saved)
    assert found
    assert YAML(typ="safe").load(folder.best_config) == {"name": f"trial-{trial}"}
    checkpoint = folder.trial(trial) / "checkpoints" / f"step-{steps:08d}"
    assert folder.best.resolve(strict=True) == checkpoint
    assert f"Best: {words}" in screen
    assert "No checkpoint is left of trial 2, val_nlpd 1.0000 after step 6." in screen


def test_a_search_without_a_checkpoint_says_so(folder: SearchFolder, search: Search) -> None:
    found, screen = _conclude(folder, state_after(search, EVENTS), saved={})
    assert not found
    assert "No trial with a value left a checkpoint" in screen
    assert not folder.best.is_symlink()
    assert not folder.best_config.exists()


def test_a_search_without_a_value_says_so(folder: SearchFolder, search: Search) -> None:
    found, screen = _conclude(
        folder, state_after(search, [TrialEnded(0, TrialEnding.FAILED, "ValueError")])
    )
    assert not found
    assert "No trial has a value" in screen
    assert not folder.best_config.exists()


def test_trials_that_never_began_are_told(
    folder: SearchFolder, search_of: Write, tmp_path: Path
) -> None:
    """As in Determined, a trial that ends of itself has no successor in a halving search."""
    search = search_of()
    events = [event for n in range(4) for event in (TrialValidated(n, 2, 2, 2.0 - n), _ended(n))]
    state = state_after(search, events)
    assert not state.open
    assert state.steps_left == 0
    _, screen = _conclude(folder, state)
    assert "8 trials never began: halving begins one where another is stopped or fails" in screen


def _ended(trial: int) -> TrialEnded:
    return TrialEnded(trial, TrialEnding.COMPLETED)


@pytest.mark.parametrize("searcher", [RANDOM, {**RANDOM, "name": "grid"}])
def test_invalid_trials_are_none_that_never_began(
    folder: SearchFolder, search_of: Write, searcher: dict[str, Any]
) -> None:
    searcher = {
        k: v for k, v in searcher.items() if (k, searcher["name"]) != ("max_trials", "grid")
    }
    batches = {"type": "categorical", "vals": [32, 64, 96, 128]}
    search = search_of(searcher=searcher, hyperparameters={"global_batch_size": batches})
    state = state_after(search, [TrialEnded(0, TrialEnding.INVALID, "why")])
    while state.open:
        number = state.open[0].number
        state.take(TrialValidated(number, 6, 6, 1.0 + number))
        state.take(_ended(number))
    _, screen = _conclude(folder, state)
    assert "1 invalid" in screen
    assert "never began" not in screen
