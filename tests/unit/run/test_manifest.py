from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from natdgp.run.manifest import Manifest
from natdgp.run.run_folder import FolderError
from natdgp.training.diagnosis import TrainingFailure


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
    with Manifest(path, seed=1, slots=1) as first:
        first.end("interrupted", 8)
    killed = Manifest(path, seed=1, slots=1)  # never ended
    assert killed.seconds == first.seconds > 0
    with Manifest(path, seed=1, slots=1) as last:
        last.end("completed", 12)
    assert last.seconds > first.seconds
    sessions = _read(path)["sessions"]
    assert [session.get("ended_as") for session in sessions] == ["interrupted", None, "completed"]
    assert [session.get("steps") for session in sessions] == [8, None, 12]
    assert sessions[0]["ended"] >= sessions[0]["started"]


@pytest.mark.parametrize(
    ("error", "noted"),
    [
        (TrainingFailure("lower gamma"), {"ended_as": "invalid", "reason": "lower gamma"}),
        (KeyboardInterrupt(), {"ended_as": "failed"}),
    ],
)
def test_a_session_that_an_exception_ends_says_so(
    tmp_path: Path, error: BaseException, noted: dict[str, str]
) -> None:
    with pytest.raises(type(error)), Manifest(tmp_path / "manifest.json", seed=1, slots=1):
        raise error
    (session,) = _read(tmp_path / "manifest.json")["sessions"]
    assert session.items() >= noted.items()


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


@pytest.mark.parametrize("content", ["", '{"sessions": [{"slo', "[]", "{}"])
def test_what_is_no_manifest_is_told_with_a_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(FolderError, match=r"manifest\.json: .*; restore or delete that file"):
        Manifest(path, seed=1, slots=1)
    assert path.read_text() == content
