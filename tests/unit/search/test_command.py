"""The command's answers before any trial begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from ruamel.yaml import YAML

from natdgp import cli
from natdgp.run.durable_files import NotSaved
from natdgp.search import search_session
from tests.unit.search.conftest import CONFIG, CSV, RANDOM


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
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
        (["--trials", 0], "searcher.max_trials: received 0; must be greater than 0"),
        (["--set", "searcher.source_trial_id=3"], "names what only a cluster has"),
        (["--slots", 3], "must be a multiple of resources.slots_per_trial, 3"),
    ],
)
def test_a_search_that_is_wrong_is_told_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], arguments: list[object], expected: str
) -> None:
    status, err = _main(capsys, _file(), *arguments)
    assert status == 2
    assert expected in err
    assert not Path("runs").exists()


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


def test_data_that_are_not_there_are_told_before_anything_is_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, err = _main(capsys, _file(data=CSV), "--out", "mine")
    assert status == 2
    assert f"data.path: {Path.cwd() / 'table.csv'} cannot be read: No such file" in err
    assert not Path("mine").exists()
