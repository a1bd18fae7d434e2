from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from natdgp.run.manifest import Manifest, close_lost_session
from natdgp.run.run_folder import FolderError


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_session_is_on_disk_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["natdgp", "train", "my file.yaml"])
    Manifest(tmp_path / "manifest.json", seed=7, slots=2)
    content = _read(tmp_path / "manifest.json")
    (session,) = content["sessions"]
    assert content["seed"] == 7
    assert session["command"] == "natdgp train 'my file.yaml'"
    assert session["slots"] == 2
    assert session["versions"].keys() >= {"natdgp", "python", "tensorflow", "gpflow", "determined"}
    assert session["machine"].keys() == {"platform", "cores", "gpus"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", session["started"])
    assert "ended" not in session


def test_sessions_add_up_over_resumes(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    first = Manifest(path, seed=1, slots=1)
    first.close(ended_as="interrupted", steps=8, seconds=2.0)
    assert first.seconds == 2.0
    killed = Manifest(path, seed=1, slots=1)  # never closed
    assert killed.seconds == 2.0
    last = Manifest(path, seed=1, slots=1)
    last.close(ended_as="completed", steps=12, seconds=0.5)
    assert last.seconds == 2.5
    sessions = _read(path)["sessions"]
    assert [session.get("ended_as") for session in sessions] == ["interrupted", None, "completed"]
    assert [session.get("steps") for session in sessions] == [8, None, 12]
    assert sessions[0]["ended"] >= sessions[0]["started"]


def test_a_session_that_could_not_end_is_closed_by_whoever_lost_it(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    close_lost_session(path, seconds=1.0)  # it had not even begun
    assert not path.exists()
    Manifest(path, seed=1, slots=2)
    close_lost_session(path, seconds=3.0)
    close_lost_session(path, seconds=4.0)  # closed already
    (session,) = _read(path)["sessions"]
    assert (session["ended_as"], session["seconds"]) == ("failed", 3.0)
    assert Manifest(path, seed=1, slots=2).seconds == 3.0


def _git(*arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        check=True,
        capture_output=True,
    )


def test_the_commit_is_noted_and_whether_files_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _git("init")
    (tmp_path / "trial.py").write_text("one")
    _git("add", "trial.py")
    _git("commit", "-m", "one")
    _git("tag", "-a", "v1", "-m", "a tag does not hide the commit")
    Manifest(tmp_path / "clean.json", seed=0, slots=1)
    (tmp_path / "trial.py").write_text("two")
    Manifest(tmp_path / "dirty.json", seed=0, slots=1)
    clean, dirty = (
        _read(tmp_path / name)["sessions"][0]["commit"] for name in ("clean.json", "dirty.json")
    )
    assert re.fullmatch(r"[0-9a-f]{40}", clean)
    assert dirty == f"{clean}-dirty"


@pytest.mark.parametrize("missing", ["repository", "git"])
def test_a_run_needs_neither_git_nor_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    if missing == "git":
        monkeypatch.setenv("PATH", str(tmp_path))
    Manifest(tmp_path / "manifest.json", seed=0, slots=1)
    assert _read(tmp_path / "manifest.json")["sessions"][0]["commit"] is None


@pytest.mark.parametrize("seconds", ['"x"', "null", "-1", "NaN", "1e999", "1" + 400 * "0", "[]"])
def test_a_session_whose_time_is_none_is_told_before_another_begins(
    tmp_path: Path, seconds: str
) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(f'{{"sessions": [{{"seconds": 1.5}}, {{"seconds": {seconds}}}]}}')
    before = path.read_text()
    told = r"manifest\.json: (seconds of session 2 is .*; mend it|this is no JSON: .* no finite)"
    with pytest.raises(FolderError, match=told):
        Manifest(path, seed=1, slots=1)
    assert path.read_text() == before


def test_a_manifest_without_sessions_lost_none(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"sessions": []}')
    close_lost_session(path, seconds=1.0)
    assert _read(path) == {"sessions": []}


@pytest.mark.parametrize("content", ["", '{"sessions": [{"slo', "[]", "{}", '{"sessions": [3]}'])
def test_what_is_no_manifest_is_told_with_a_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    for read in (
        lambda: Manifest(path, seed=1, slots=1),
        lambda: close_lost_session(path, seconds=1.0),
    ):
        with pytest.raises(FolderError, match=r"manifest\.json: .*; restore or delete that file"):
            read()
    assert path.read_text() == content
