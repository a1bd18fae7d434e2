from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from natdgp.checkpoint.checksums import RECORD_NAME
from natdgp.checkpoint.record import ModelRecord
from natdgp.run import run_folder as folder_module
from natdgp.run.durable_files import NotSaved
from natdgp.run.process_lock import ProcessLock
from natdgp.run.run_folder import (
    Checkpoint,
    FolderError,
    RunFolder,
    link_to,
    next_free,
    read_json_lines,
    write_json,
)
from tests.checkpoint_files import write_checkpoint

Put = Callable[[int], Checkpoint]


def _everything(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def test_a_new_folder_has_a_place_for_everything(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "deep" / "run")
    assert {path.name for path in folder.root.iterdir()} == {"checkpoints", "code", "tensorboard"}
    assert not folder.checkpoints()


def test_an_empty_folder_may_be_claimed(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path).root == tmp_path


def test_an_earlier_run_is_refused_with_the_command_that_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "my run"
    RunFolder.create(root).write_config({"name": "mine"})
    before = _everything(root)
    with pytest.raises(FolderError) as raised:
        RunFolder.create(root)
    assert f"natdgp train --resume '{root}'" in str(raised.value)
    assert "--out" in str(raised.value)
    assert _everything(root) == before


def test_a_folder_of_something_else_is_refused_without_a_resume(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FolderError, match="exists already; choose another folder with --out"):
        RunFolder.create(tmp_path)


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_in_the_way_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="another folder with --out"):
        RunFolder.create(tmp_path / "file" / below)


def test_names_that_are_too_long_are_refused(tmp_path: Path) -> None:
    too_long = "d" * 300
    for create in (
        lambda: RunFolder.create(tmp_path / too_long),
        lambda: RunFolder.create(next_free(tmp_path, too_long)),
    ):
        with pytest.raises(FolderError, match="cannot be made: File name too long; choose another"):
            create()
    with pytest.raises(FolderError, match="is not the folder of a run"):
        RunFolder.open(tmp_path / too_long)


def test_default_names_count_up_fill_gaps_and_never_overwrite(tmp_path: Path) -> None:
    (tmp_path / "flights").touch()
    (tmp_path / "flights-3").mkdir()
    names = [RunFolder.create(next_free(tmp_path, "flights")).root.name for _ in range(2)]
    assert names == ["flights-2", "flights-4"]


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_what_is_no_run_is_not_opened(tmp_path: Path, content: str | None) -> None:
    root = tmp_path / "other"
    if content:
        root.mkdir()
        (root / content).touch()
    with pytest.raises(FolderError, match=r"not the folder of a run: it has no config\.yaml"):
        RunFolder.open(root)


def test_relative_folders_stay_where_they_are_when_the_run_works_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    created = RunFolder.create(Path("runs/a"))
    created.write_config({})
    opened = RunFolder.open(Path("runs/a"))
    assert created.shown == opened.shown == Path("runs/a")
    monkeypatch.chdir(created.code)
    assert created.root == opened.root
    assert opened.config.is_file()
    assert opened.shown == tmp_path / "runs" / "a"


def test_only_whole_checkpoints_are_seen_oldest_first(folder: RunFolder, put: Put) -> None:
    for steps in (12, 4, 100_000_000):
        put(steps)
    folder.checkpoint(8).path.mkdir()  # without a record
    with folder.saving(folder.checkpoint(16)) as aside:
        write_checkpoint(aside)
        assert [checkpoint.steps for checkpoint in folder.checkpoints()] == [4, 12, 100_000_000]
    folder.remove(folder.checkpoint(12))
    assert [checkpoint.steps for checkpoint in folder.checkpoints()] == [4, 16, 100_000_000]


def test_a_run_whose_checkpoints_were_deleted_has_none(folder: RunFolder) -> None:
    folder.checkpoint(4).path.parent.rmdir()
    assert folder.checkpoints() == []
    assert folder.set_damaged_aside() == []


def test_what_was_out_of_sight_when_a_run_was_killed_is_cleared(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.root / "checkpoints" / ".step-00000008.partial" / "code").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", Mock(side_effect=PermissionError(13, "Permission denied")))
        with pytest.raises(NotSaved, match=r"\.step-00000008\.partial .*: Permission denied"):
            folder.saving(folder.checkpoint(12)).__enter__()
    with folder.saving(folder.checkpoint(12)):
        pass
    assert list((folder.root / "checkpoints").iterdir()) == [folder.checkpoint(12).path]


@pytest.fixture
def any_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a checkpoint says about its model is not read."""
    monkeypatch.setattr(ModelRecord, "read", lambda _: None)


@pytest.mark.usefixtures("any_record")
def test_damaged_checkpoints_are_set_aside_and_told(folder: RunFolder, put: Put) -> None:
    place = folder.checkpoint(4).path.parent
    for steps in (4, 8, 12, 16):
        put(steps)
    assert folder.set_damaged_aside() == []
    (place / "step-00000004" / RECORD_NAME).unlink()
    (place / "step-00000012" / RECORD_NAME).write_text("")
    (place / "damaged-step-00000012").mkdir()
    (place / "step-00000020").touch()  # not even a folder
    first, second, third = map(str, folder.set_damaged_aside())
    assert f"step-00000004/{RECORD_NAME} is missing" in first
    assert f"step-00000012/{RECORD_NAME} has 0 bytes; 2 were written" in second
    assert "step-00000020 cannot be read: Not a directory" in third
    assert [checkpoint.steps for checkpoint in folder.checkpoints()] == [8, 16]
    assert (place / "damaged-step-00000012-2" / RECORD_NAME).exists()
    assert {path.name for path in place.glob("damaged-*0")} == {"damaged-step-00000020"}


def test_other_names_are_nobodys_checkpoints(folder: RunFolder) -> None:
    for name in ("step-00000012-copy", "step-12", "step-", "step-00000012.zip"):
        (folder.root / "checkpoints" / name).mkdir()
        (folder.root / "checkpoints" / name / RECORD_NAME).touch()
    assert folder.checkpoints() == []
    assert folder.set_damaged_aside() == []


def test_checkpoints_on_a_disk_that_is_not_there_are_missed(
    folder: RunFolder, tmp_path: Path
) -> None:
    checkpoints = folder.root / "checkpoints"
    checkpoints.rmdir()
    with folder.occupied():
        checkpoints.symlink_to(tmp_path / "unmounted")
    with pytest.raises(FolderError, match="checkpoints leads to no folder; bring"):
        folder.occupied().__enter__()
    (tmp_path / "unmounted").mkdir()
    with folder.occupied():
        pass


@pytest.mark.parametrize("what", [Path.touch, Path.mkdir])
def test_what_stands_where_the_link_to_the_best_checkpoint_goes_is_refused(
    folder: RunFolder, what: Callable[[Path], None]
) -> None:
    link_to(folder.best, folder.checkpoint(4).path)
    with folder.occupied():  # wherever it leads
        folder.best.unlink()
    what(folder.best)
    with pytest.raises(FolderError, match="best is no link to a checkpoint; give it another name"):
        folder.occupied().__enter__()


def test_a_folder_has_room_for_one_command(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "PATIENCE", 0.0)
    with folder.occupied():
        with pytest.raises(FolderError, match="run is being trained by another command"):
            folder.occupied().__enter__()
        folder.discard_unless_begun()
        assert folder.root.exists()
    with folder.occupied():
        pass
    folder.discard_unless_begun()
    assert not folder.root.exists()


def test_ranks_of_a_command_that_was_killed_may_take_to_end(folder: RunFolder) -> None:
    rank = ProcessLock(folder.lock)
    assert rank.hold()
    threading.Timer(0.5, rank.release).start()
    with folder.occupied():
        pass


@pytest.mark.parametrize("left", ["nothing", "report", "checkpoint"])
def test_a_run_that_left_nothing_frees_its_name(folder: RunFolder, put: Put, left: str) -> None:
    folder.write_config({"name": "mine"})
    folder.metrics.write_text('{"group": "training"}\n' if left == "report" else "")
    if left == "checkpoint":
        put(0)
    folder.lock.touch()
    before = _everything(folder.root)
    folder.discard_unless_begun()
    assert _everything(folder.root) == ({} if left == "nothing" else before)
    assert folder.root.exists() == (left != "nothing")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": 2, "b": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("inf")})
    assert not (tmp_path / "a.json").exists()


def test_lines_are_read_but_for_one_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    assert not list(read_json_lines(path))
    path.write_text('{"a": 1}\n{"a": "\\u2028"}\n{"a": ')
    assert list(read_json_lines(path)) == [{"a": 1}, {"a": "\u2028"}]


@pytest.mark.parametrize("line", ["garbage", "[1]", "3", "", "\x00"])
def test_a_line_that_is_no_object_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "lines").write_text(f'{{"a": 1}}\n{line}\n{{"a": 2}}\n')
    with pytest.raises(FolderError, match=r"lines, line 2: this is no JSON.*; delete that line"):
        list(read_json_lines(tmp_path / "lines"))
