"""The command's answers before any trial begins, and the search from the user's side."""

from __future__ import annotations

import functools
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from rich.console import Console
from ruamel.yaml import YAML

from natdgp import cli
from natdgp.local.durable import NotSaved
from natdgp.local.folder import FolderError
from natdgp.local.lifeline import Lifeline
from natdgp.search import session
from natdgp.search.display import SearchDisplay
from natdgp.search.folder import SearchFolder
from natdgp.search.runner import Runner
from natdgp.search.session import new_search, search_and_report
from natdgp.settings import Search
from tests.conftest import REPOSITORY
from tests.unit.search.conftest import CONFIG, RANDOM, Write

STAND_IN = (sys.executable, "-m", "tests.unit.search.stand_in")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
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
            "--trials 0: searcher.max_trials: received 0; must be a whole number above 0",
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

    monkeypatch.setattr(session, "copy_trial_code", refuse)
    monkeypatch.setattr(session, "find_trial_code", lambda *_: Path("trials"))
    status, err = _main(capsys, _file(), "--out", "mine")
    assert status == 1
    assert err.endswith("code/trials cannot be written: No space left on device; make room\n")


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
    monkeypatch.setattr(session, "Runner", functools.partial(Runner, program=STAND_IN))
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
    monkeypatch.setattr(session, "Runner", functools.partial(Runner, program=STAND_IN))
    search = search_of(searcher={**RANDOM, "max_trials": 1})
    _, screen = _report(new_search(search, REPOSITORY, tmp_path / "mine"))
    assert "random: 1 trial, 6 steps at most" in screen
    assert "1 of 1 trial, " in screen
    assert "1 trial (1 completed), 6 steps" in screen


def test_an_interruption_saves_and_tells_the_way_on(
    folder: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(SearchDisplay):
        def begun(self, *arguments: Any) -> None:
            super().begun(*arguments)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(session, "SearchDisplay", Interrupting)
    status, screen = _report(folder)
    assert status == 128 + signal.SIGTERM
    assert "SIGTERM; everything is saved. Go on with:\n  natdgp search --resume mine" in screen


def test_a_folder_is_searched_by_one_process_at_a_time(
    folder: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "PATIENCE", 0.0)
    other = Lifeline(folder.lock)
    assert other.hold()
    with pytest.raises(FolderError, match="is being searched by another process"):
        _report(folder)
    other.release()


def test_the_folder_holds_what_the_search_needs_from_elsewhere(
    search_of: Write, tmp_path: Path
) -> None:
    data = {"source": "csv", "path": "table.csv", "target": ["y"]}
    entrypoint = "python3 -m determined.launch.horovod --trial trials.deep_gp:DeepGPTrial"
    search = search_of(data=data, entrypoint=entrypoint)
    folder = new_search(search, REPOSITORY, tmp_path / "mine")
    config = YAML(typ="safe").load(folder.config)
    assert config["data"]["path"] == str(REPOSITORY / "table.csv")
    assert config["hyperparameters"] == CONFIG["hyperparameters"]
    assert (folder.code / "trials" / "deep_gp.py").is_file()
