"""What a search leaves behind: leaderboard, page, and the study that others can read."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from rich.console import Console
from ruamel.yaml import YAML

from natdgp.run.run_folder import FolderError
from natdgp.search.cost import cost_of, steps_left
from natdgp.search.decisions import Ending, Verdict
from natdgp.search.event_log import Ledger
from natdgp.search.events import Ended, Event, Validated, from_plain, to_plain
from natdgp.search.page import PLOTS
from natdgp.search.progress import Progress
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_report import conclude
from natdgp.settings import Search
from tests.unit.search.conftest import CONFIG, RANDOM, Write
from tests.unit.search.made_up import RECORD

EVENTS: tuple[Event, ...] = (
    Validated(0, 2, 2, 3.5),
    Validated(0, 6, 6, 3.75),
    Ended(0, Ending.COMPLETED),
    Validated(2, 2, 2, 1.25),
    Ended(1, Ending.INVALID, "gamma is too long"),
    Validated(2, 6, 6, 1.0),
    Ended(2, Ending.COMPLETED),
    Ended(3, Ending.FAILED, "ValueError"),
    Validated(4, 2, 2, 1.0),
    Ended(4, Ending.COMPLETED),
)


@pytest.fixture
def search(search_of: Write) -> Search:
    return search_of(searcher=RANDOM)


@pytest.fixture
def folder(search: Search, tmp_path: Path) -> SearchFolder:
    folder = SearchFolder.create(tmp_path / "search", "waves")
    folder.write_config(search.config)
    return folder


def _conclude(
    folder: SearchFolder, progress: Progress, saved: dict[int, tuple[int, ...]] | None = None
) -> tuple[bool, str]:
    """:param saved: steps of each trial's checkpoints; by default, all that were validated."""
    for trial in progress.trials:
        run = folder.trial(trial.number)
        run.mkdir()
        (run / "config.yaml").write_text(f"name: trial-{trial.number}\n")
        for steps in trial.values if saved is None else saved.get(trial.number, ()):
            checkpoint = run / "checkpoints" / f"step-{steps:08d}"
            checkpoint.mkdir(parents=True)
            (checkpoint / RECORD).touch()
    console = Console(file=io.StringIO(), width=200)
    found = conclude(console, folder, progress, cost_of(progress.search))
    assert isinstance(console.file, io.StringIO)
    return found, console.file.getvalue()


@pytest.mark.parametrize("event", EVENTS)
def test_events_are_read_back_from_their_plain_form(event: Event) -> None:
    assert from_plain(to_plain(event)) == event


def test_the_leaderboard_has_the_best_first_and_those_without_a_value_last(
    folder: SearchFolder, search: Search
) -> None:
    found, screen = _conclude(folder, Progress(search, EVENTS))
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
    point = Progress(search).trials[2].point
    assert float(best["natural_gradient.gamma"]) == point["natural_gradient"]["gamma"]
    assert rows[3]["reason"] == "gamma is too long"
    assert "5 trials (3 completed, 1 invalid, 1 failed), 14 steps" in screen
    assert "Best: trial 2, val_nlpd 1.0000 after step 6" in screen


def test_the_best_trial_is_at_hand(folder: SearchFolder, search: Search) -> None:
    _conclude(folder, Progress(search, EVENTS))
    assert YAML(typ="safe").load(folder.best_config) == {"name": "trial-2"}
    assert folder.best.resolve() == folder.trial(2) / "checkpoints" / "step-00000006"


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_no_number_is_never_the_best(search: Search, value: float) -> None:
    progress = Progress(search, (Validated(0, 2, 2, value), *EVENTS[1:]))
    assert progress.best_value(progress.trials[0]) == 3.75
    progress = Progress(search, (Validated(0, 2, 2, value), *EVENTS[3:]))
    assert [trial.number for trial in progress.ranked()][:3] == [2, 4, 0]


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
    found, screen = _conclude(folder, Progress(search, EVENTS), saved)
    assert found
    assert YAML(typ="safe").load(folder.best_config) == {"name": f"trial-{trial}"}
    checkpoint = folder.trial(trial) / "checkpoints" / f"step-{steps:08d}"
    assert folder.best.resolve(strict=True) == checkpoint
    assert f"Best: {words}" in screen
    assert "No checkpoint is left of trial 2, val_nlpd 1.0000 after step 6." in screen


def test_a_search_without_a_checkpoint_says_so(folder: SearchFolder, search: Search) -> None:
    found, screen = _conclude(folder, Progress(search, EVENTS), saved={})
    assert not found
    assert "No trial with a value left a checkpoint" in screen
    assert not folder.best.is_symlink()
    assert not folder.best_config.exists()


def test_the_page_has_every_plot_and_needs_no_network(folder: SearchFolder, search: Search) -> None:
    _conclude(folder, Progress(search, EVENTS))
    page = folder.page.read_text(encoding="utf-8")
    assert [page.count(f"<h2>{title}</h2>") for title in PLOTS] == [1] * len(PLOTS)
    assert page.count("Plotly.newPlot(") == len(PLOTS)
    assert "<script src=" not in page
    assert "<link" not in page


def test_of_one_value_there_is_nothing_to_plot(folder: SearchFolder, search: Search) -> None:
    _conclude(folder, Progress(search, EVENTS[:3]))
    page = folder.page.read_text(encoding="utf-8")
    assert page.count("Needs two trials") == len(PLOTS)


def test_a_search_without_a_value_says_so(folder: SearchFolder, search: Search) -> None:
    found, screen = _conclude(folder, Progress(search, [Ended(0, Ending.FAILED, "ValueError")]))
    assert not found
    assert "No trial has a value" in screen
    assert not folder.best_config.exists()


def test_trials_that_never_began_are_told(
    folder: SearchFolder, search_of: Write, tmp_path: Path
) -> None:
    """As in Determined, a trial that ends of itself has no successor in a halving search."""
    search = search_of()
    events = [event for n in range(4) for event in (Validated(n, 2, 2, 2.0 - n), _ended(n))]
    progress = Progress(search, events)
    assert not progress.open
    assert steps_left(progress) == 0
    _, screen = _conclude(folder, progress)
    assert "8 trials never began: halving begins one where another is stopped or fails" in screen


def _ended(trial: int) -> Ended:
    return Ended(trial, Ending.COMPLETED)


@pytest.mark.parametrize("searcher", [RANDOM, {**RANDOM, "name": "grid"}])
def test_invalid_trials_are_none_that_never_began(
    folder: SearchFolder, search_of: Write, searcher: dict[str, Any]
) -> None:
    searcher = {
        k: v for k, v in searcher.items() if (k, searcher["name"]) != ("max_trials", "grid")
    }
    batches = {"type": "categorical", "vals": [32, 64, 96, 128]}
    search = search_of(searcher=searcher, hyperparameters={"global_batch_size": batches})
    progress = Progress(search, [Ended(0, Ending.INVALID, "why")])
    while progress.open:
        number = progress.open[0].number
        progress.take(Validated(number, 6, 6, 1.0 + number))
        progress.take(_ended(number))
    _, screen = _conclude(folder, progress)
    assert "1 invalid" in screen
    assert "never began" not in screen


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_ledger_and_the_page_bear_what_is_no_number(
    folder: SearchFolder, search: Search, value: float
) -> None:
    ledger, progress = Ledger(folder, search), Progress(search)
    ledger.mirror(progress)
    for event in (Validated(0, 2, 2, value), Ended(0, Ending.COMPLETED), *EVENTS[3:]):
        ledger.record(event)
        progress.take(event)
        ledger.follow(progress, event)
    ledger.close()
    again = Ledger(folder, search)
    again.mirror(Progress(search, again.events()))
    assert again._study.trials[0].state is TrialState.FAIL
    again.close()
    assert _conclude(folder, progress)[0]
    assert "Plotly.newPlot(" in folder.page.read_text(encoding="utf-8")


def test_a_verdict_that_ends_a_trial_stands_whatever_comes_late(search_of: Write) -> None:
    progress = Progress(search_of(), [Validated(0, 2, 2, 1.0), Validated(1, 2, 2, 9.0)])
    assert [progress.trials[n].verdict for n in (0, 1)] == [Verdict.GO_ON, Verdict.STOP]
    progress.take(Validated(1, 4, 4, 0.5))
    assert progress.trials[1].verdict is Verdict.STOP


def test_the_ledger_remembers_events_in_their_order_and_mirrors_trials(
    folder: SearchFolder, search: Search
) -> None:
    ledger, progress = Ledger(folder, search), Progress(search)
    for event in EVENTS:
        ledger.record(event)
        progress.take(event)
    ledger.mirror(progress)
    again = Ledger(folder, search)
    assert tuple(again.events()) == EVENTS
    again.record(EVENTS[0])
    assert again.events()[-1] == EVENTS[0]

    study = optuna.load_study(study_name="waves", storage=f"sqlite:///{folder.database}")
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
    ]
    assert study.trials[0].intermediate_values == {2: 3.5, 6: 3.75}
    assert study.best_trial.number in (2, 4)
    assert study.trials[1].user_attrs == {"reason": "gamma is too long"}
    gamma = progress.trials[2].point["natural_gradient"]["gamma"]
    assert study.trials[2].params["natural_gradient.gamma"] == gamma


@pytest.mark.parametrize("name", ["p?1", "a%20b", "a%b", "c#d", "e f", "{g}", "sqlite:///h"])
def test_a_ledger_lies_in_its_own_folder_whatever_that_is_called(
    search: Search, tmp_path: Path, name: str
) -> None:
    for each in (name, f"{name}2"):
        folder = SearchFolder.create(tmp_path / each, "waves")
        ledger = Ledger(folder, search)
        assert not ledger.events()
        ledger.record(EVENTS[0])
        ledger.close()
        assert folder.database.is_file()


@pytest.mark.parametrize(
    "other",
    [
        {"name": "ripples"},
        {"searcher": {**RANDOM, "max_trials": 5}},
        {"reproducibility": {"experiment_seed": 6}},
        {"hyperparameters": {**CONFIG["hyperparameters"], "global_batch_size": 32}},
    ],
)
def test_the_study_of_another_search_is_refused(
    folder: SearchFolder, search: Search, search_of: Write, other: dict[str, Any]
) -> None:
    Ledger(folder, search).close()
    with pytest.raises(FolderError, match=r"search\.db remembers another search"):
        Ledger(folder, search_of(**{"searcher": RANDOM, **other}))
    Ledger(folder, search).close()


def _mirrored(folder: SearchFolder, search: Search) -> list[tuple[object, ...]]:
    ledger = Ledger(folder, search)
    trials = ledger._study.trials
    ledger.close()
    return [(t.state, t.value, t.params, t.intermediate_values, t.user_attrs) for t in trials]


def test_trials_followed_event_by_event_are_those_that_are_mirrored_at_once(
    search: Search, tmp_path: Path
) -> None:
    """Also if the search is killed after an event, before its trial has followed."""
    at_once, followed = (SearchFolder.create(tmp_path / name, "waves") for name in ("a", "b"))
    ledger = Ledger(at_once, search)
    ledger.mirror(Progress(search, EVENTS))
    ledger.close()

    for index, event in enumerate(EVENTS):
        ledger = Ledger(followed, search)
        progress = Progress(search, ledger.events())
        ledger.mirror(progress)
        ledger.record(event)
        progress.take(event)
        if index % 3:
            ledger.follow(progress, event)
        ledger.close()
    ledger = Ledger(followed, search)
    ledger.mirror(Progress(search, EVENTS))
    ledger.close()
    assert _mirrored(followed, search) == _mirrored(at_once, search)


def test_following_an_event_reads_no_other_trial(
    folder: SearchFolder, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a search of many trials would spend its time on that."""
    ledger, progress = Ledger(folder, search), Progress(search)
    ledger.mirror(progress)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("all trials are read")

    monkeypatch.setattr(RDBStorage, "get_all_trials", refuse)
    for event in EVENTS:
        ledger.record(event)
        progress.take(event)
        ledger.follow(progress, event)
    monkeypatch.undo()
    assert len(_mirrored(folder, search)) == 5
