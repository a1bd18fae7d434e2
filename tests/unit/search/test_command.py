"""The command's answers before any trial begins, and the search from the user's side."""

from __future__ import annotations

import functools
import io
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from rich.console import Console
from ruamel.yaml import YAML

from natdgp import cli
from natdgp.run.durable_files import NotSaved
from natdgp.run.process_lock import ProcessLock
from natdgp.run.run_folder import FolderError
from natdgp.search import search_session
from natdgp.search.runner import Runner
from natdgp.search.search_display import SearchDisplay
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_session import new_search, search_and_report
from natdgp.search.search_state import TrialEnded, TrialStarted
from natdgp.settings import Search
from tests.conftest import REPOSITORY, fill
from tests.unit.search.conftest import CONFIG, RANDOM, Write

STAND_IN = (sys.executable, "-m", "tests.unit.search.stand_in")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{REPOSITORY}/src")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])


def _file(**changes: Any) -> Path:
    path = Path("search-of.yaml")
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump({**CONFIG, "searcher": RANDOM, **changes}, file)
    return path


def _main(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = cli.main(["search", *map(str, arguments)])
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give either an experiment FILE or --resume DIR"),
        (["a.yaml", "--resume", "b"], "give either an experiment FILE or --resume DIR"),
        (["--resume", "b", "--trials", 3], "a search is resumed in its own terms"),
        (["--resume", "b", "--slots", 1], "a search is resumed in its own terms"),
        (["--resume", "b", "--set", "a=1"], "a search is resumed in its own terms"),
        (["a.yaml", "--jobs", 0], "--jobs is 0, but at least one trial has to be under way"),
        (["--resume", "b"], "b is not the folder of a search: it has no search.yaml"),
        (["a.yaml"], "a.yaml: there is no such file"),
    ],
)
def test_a_request_that_is_wrong_is_told(
    capsys: pytest.CaptureFixture[str], arguments: list[object], expected: str
) -> None:
    status, err = _main(capsys, *arguments)
    assert status == 2
    assert expected in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--trials", 0],
            "--trials 0: searcher.max_trials: received 0; must be greater than 0",
        ),
        (["--set", "searcher.source_trial_id=3"], "names what only a cluster has"),
        (["--slots", 3], "must be a multiple of resources.slots_per_trial, 3"),
    ],
)
def test_a_search_that_is_wrong_is_told_with_the_option(
    capsys: pytest.CaptureFixture[str], arguments: list[object], expected: str
) -> None:
    status, err = _main(capsys, _file(), *arguments)
    assert status == 2
    assert expected in err
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["single", "grid"])
def test_a_number_of_trials_is_told_in_its_own_terms_to_be_for_other_searchers(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    searcher = {"name": name, "metric": "val_nlpd", "max_length": {"batches": 6}}
    constants = {"global_batch_size": 32}
    file = _file(searcher=searcher, hyperparameters=constants)
    status, err = _main(capsys, file, "--trials", 3)
    assert status == 2
    assert "--trials 3: searcher.max_trials: received 3; this searcher has no number" in err
    assert "random, async_halving, adaptive_asha have" in err
    assert "--set" not in err


def test_a_folder_that_is_taken_is_refused_with_the_way_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (Path("mine")).mkdir()
    Path("mine/search.yaml").touch()
    status, err = _main(capsys, _file(), "--out", "mine")
    assert status == 2
    assert "go on with it by `natdgp search --resume mine`" in err


def test_a_disk_that_refuses_the_search_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise NotSaved("code/trials cannot be written: No space left on device")

    monkeypatch.setattr(search_session, "copy_trial_code", refuse)
    monkeypatch.setattr(search_session, "find_trial_code", lambda *_: Path("trials"))
    status, err = _main(capsys, _file(), "--out", "mine")
    assert status == 1
    assert err.endswith("code/trials cannot be written: No space left on device\n")
    assert not Path("mine").exists()  # so that the same command can be given again


def test_more_trials_at_once_than_gpus_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a GPU", "another"])
    status, err = _main(capsys, _file(), "--jobs", 3)
    assert status == 2
    assert "use --jobs 2, or search on the cores with --device cpu" in err
    assert not Path("runs").exists()


@pytest.fixture
def folder(search_of: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SearchFolder:
    monkeypatch.setattr(search_session, "Runner", functools.partial(Runner, program=STAND_IN))
    search: Search = search_of(searcher=RANDOM)
    return new_search(search, REPOSITORY, tmp_path / "mine")


def _report(folder: SearchFolder) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    status = search_and_report(console, folder, [{}], live=False)
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


def test_a_search_says_what_it_costs_and_ends_with_its_best(folder: SearchFolder) -> None:
    status, screen = _report(folder)
    assert status == 0
    assert "random: 4 trials, 24 steps at most. An estimate of time follows" in screen
    assert "4 trials (4 completed), 24 steps" in screen
    assert "best.yaml         the best trial: natdgp train " in screen
    assert folder.leaderboard.is_file()

    status, screen = _report(folder)
    assert status == 0
    assert "Going on with" in screen
    assert "4 have ended already" in screen


def test_one_trial_is_told_of_as_one(
    search_of: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(search_session, "Runner", functools.partial(Runner, program=STAND_IN))
    search = search_of(searcher={**RANDOM, "max_trials": 1})
    _, screen = _report(new_search(search, REPOSITORY, tmp_path / "mine"))
    assert "random: 1 trial, 6 steps at most" in screen
    assert "1 of 1 trial, " in screen
    assert "1 trial (1 completed), 6 steps" in screen


def test_an_interruption_saves_and_tells_the_way_on(
    folder: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(SearchDisplay):
        def show(self, event: Any) -> None:
            super().show(event)
            if isinstance(event, TrialStarted):
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(search_session, "SearchDisplay", Interrupting)
    status, screen = _report(folder)
    assert status == 128 + signal.SIGTERM
    assert "SIGTERM; everything is saved. Go on with:\n  natdgp search --resume mine" in screen
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
    data = {"source": "csv", "path": "table.csv", "target": ["y"]}
    entrypoint = "python3 -m determined.launch.horovod --trial trials.deep_gp:DeepGPTrial"
    search = search_of(data=data, entrypoint=entrypoint)
    folder = new_search(search, source, tmp_path / "mine")
    config = YAML(typ="safe").load(folder.config)
    assert config["data"]["path"] == str(source / "table.csv")
    assert config["hyperparameters"] == CONFIG["hyperparameters"]
    assert (folder.code / "trials" / "deep_gp.py").is_file()


CSV = {"source": "csv", "path": "table.csv", "target": ["y"]}


def test_data_that_are_not_there_are_told_before_anything_is_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, err = _main(capsys, _file(data=CSV), "--out", "mine")
    assert status == 2
    assert f"data.path: {Path.cwd() / 'table.csv'} cannot be read: No such file" in err
    assert not Path("mine").exists()


def test_data_that_change_between_trials_end_the_search(
    search_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the leaderboard would compare figures on other rows."""
    table = tmp_path / "table.csv"
    table.write_text("x,y\n1,2\n")

    class Changing(SearchDisplay):
        def show(self, event: Any) -> None:
            super().show(event)
            if isinstance(event, TrialEnded):
                table.write_text("x,y\n1,3\n")

    monkeypatch.setattr(search_session, "Runner", functools.partial(Runner, program=STAND_IN))
    folder = new_search(search_of(searcher=RANDOM, data=CSV), tmp_path, tmp_path / "mine")
    with monkeypatch.context() as changing:
        changing.setattr(search_session, "SearchDisplay", Changing)
        status, screen = _report(folder)
    assert status == 1
    assert "The search cannot go on: the data changed since the search began" in screen
    with pytest.raises(FolderError, match="bring the former data back"):
        _report(folder)

    table.write_text("x,y\n1,2\n")
    status, screen = _report(folder)
    assert (status, "1 have ended already" in screen) == (0, True)


def test_a_disk_that_fills_in_the_middle_ends_the_search_with_the_way_on(
    search_of: Write, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Filling(SearchDisplay):
        def show(self, event: Any) -> None:
            super().show(event)
            if isinstance(event, TrialEnded) and event.trial == 1:
                fill(small_disk)

    monkeypatch.setattr(search_session, "Runner", functools.partial(Runner, program=STAND_IN))
    folder = new_search(search_of(searcher=RANDOM), REPOSITORY, small_disk / "mine")
    # The library of the plots alone would fill the disk.
    monkeypatch.setattr("natdgp.search.optuna_study.PLOTS", {})
    with monkeypatch.context() as filling:
        filling.setattr(search_session, "SearchDisplay", Filling)
        status, screen = _report(folder)
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
    assert "search.db cannot be written: database or disk is full\nOnce that" in screen


def test_a_damaged_memory_is_told_and_made_anew_from_what_the_trials_saved(
    folder: SearchFolder,
) -> None:
    assert _report(folder)[0] == 0
    leaderboard = folder.leaderboard.read_text()
    folder.events.write_text("no JSON\n")
    with pytest.raises(FolderError, match=r"events\.jsonl cannot be read \(line 1: .*\); move it"):
        _report(folder)
    folder.events.unlink()
    with pytest.raises(FolderError, match=r"search\.db, but no events in .*; move search\.db away"):
        _report(folder)
    folder.database.unlink()
    assert _report(folder)[0] == 0
    assert folder.leaderboard.read_text() == leaderboard
