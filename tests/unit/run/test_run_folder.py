from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from natdgp.checkpoint.checksums import RECORD_NAME
from natdgp.run import run_folder as folder_module
from natdgp.run.durable_files import NotSaved
from natdgp.run.process_lock import ProcessLock
from natdgp.run.run_folder import FolderError, RunFolder, read_json_lines, write_json
from tests.checkpoint_files import write_checkpoint


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
        lambda: RunFolder.create_next(tmp_path, too_long),
    ):
        with pytest.raises(FolderError, match="cannot be made: File name too long; choose another"):
            create()
    with pytest.raises(FolderError, match="is not the folder of a run"):
        RunFolder.open(tmp_path / too_long)


def test_default_names_count_up(tmp_path: Path) -> None:
    names = [RunFolder.create_next(tmp_path, "flights").root.name for _ in range(3)]
    assert names == ["flights", "flights-2", "flights-3"]


def test_default_names_fill_gaps_and_never_overwrite(tmp_path: Path) -> None:
    (tmp_path / "flights").touch()
    (tmp_path / "flights-3").mkdir()
    assert RunFolder.create_next(tmp_path, "flights").root.name == "flights-2"
    assert RunFolder.create_next(tmp_path, "flights").root.name == "flights-4"


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
    assert created == opened
    assert opened.config.is_file()
    assert opened.shown == tmp_path / "runs" / "a"


def test_only_whole_checkpoints_are_seen_oldest_first(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path)
    for steps in (12, 4, 100_000_000):
        place = folder.checkpoint(steps)
        place.path.mkdir()
        (place.path / RECORD_NAME).touch()
    folder.checkpoint(8).path.mkdir()  # without a record
    aside = tmp_path / "checkpoints" / ".step-00000016.partial"
    aside.mkdir()
    (aside / RECORD_NAME).touch()
    assert [checkpoint.steps for checkpoint in folder.checkpoints()] == [4, 12, 100_000_000]
    folder.remove(folder.checkpoint(12))
    assert [checkpoint.steps for checkpoint in folder.checkpoints()] == [4, 100_000_000]


def test_a_run_whose_checkpoints_were_deleted_has_none(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    (folder.root / "checkpoints").rmdir()
    assert folder.checkpoints() == []
    assert folder.set_damaged_aside() == []


def test_what_was_out_of_sight_when_a_run_was_killed_is_cleared(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path)
    place = folder.checkpoint(4)
    place.path.mkdir()
    (folder.aside(folder.checkpoint(8)) / "code").mkdir(parents=True)
    folder.aside(folder.checkpoint(12)).touch()
    folder.aside(folder.checkpoint(16)).symlink_to(place.path)
    folder.clear_leftovers()
    assert list((tmp_path / "checkpoints").iterdir()) == [place.path]


def test_leftovers_that_cannot_be_cleared_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    folder = RunFolder.create(tmp_path)
    folder.aside(folder.checkpoint(4)).touch()
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(NotSaved, match=r"\.step-00000004\.partial .*: Permission denied"):
        folder.clear_leftovers()


def test_damaged_checkpoints_are_set_aside_and_told(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path)
    for steps in (4, 8, 12):
        place = folder.checkpoint(steps).path
        place.mkdir()
        write_checkpoint(place)
    assert folder.set_damaged_aside() == []
    for steps in (4, 12):
        (folder.checkpoint(steps).path / RECORD_NAME).write_text("")
    (tmp_path / "checkpoints" / "damaged-step-00000012").mkdir()
    first, second = folder.set_damaged_aside()
    assert f"step-00000004/{RECORD_NAME} has 0 bytes; 2 were written" in str(first)
    assert f"step-00000012/{RECORD_NAME} has 0 bytes; 2 were written" in str(second)
    assert [checkpoint.steps for checkpoint in folder.checkpoints()] == [8]
    assert (tmp_path / "checkpoints" / "damaged-step-00000012-2" / RECORD_NAME).exists()


def test_what_lost_its_record_is_damaged_too(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path)
    for steps in (4, 8):
        folder.checkpoint(steps).path.mkdir()
        write_checkpoint(folder.checkpoint(steps).path)
    (folder.checkpoint(8).path / RECORD_NAME).unlink()
    folder.checkpoint(12).path.touch()  # not even a folder
    first, second = folder.set_damaged_aside()
    assert f"step-00000008/{RECORD_NAME} is missing" in str(first)
    assert "step-00000012 cannot be read: Not a directory" in str(second)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "step-00000004",
        "damaged-step-00000008",
        "damaged-step-00000012",
    }


def test_other_names_are_nobodys_checkpoints(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path)
    for name in ("step-00000012-copy", "step-12", "step-", "step-00000012.zip"):
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / RECORD_NAME).touch()
    assert folder.checkpoints() == []
    assert folder.set_damaged_aside() == []


@pytest.mark.parametrize("note", ['{"steps_completed": 4}', "{", "[4]"])
def test_a_checkpoint_with_the_name_of_another_step_is_set_aside(tmp_path: Path, note: str) -> None:
    folder = RunFolder.create(tmp_path)
    place = folder.checkpoint(8).path
    place.mkdir()
    (place / "metadata.json").write_text(note)
    write_checkpoint(place)
    (problem,) = folder.set_damaged_aside()
    told = "step-00000008 was saved after step 4, not" if "steps" in note else "no note of a step"
    assert told in str(problem)
    assert folder.checkpoints() == []
    assert (tmp_path / "checkpoints" / "damaged-step-00000008").is_dir()


@pytest.mark.parametrize("note", ['{"steps_completed": 8}', "{}", None])
def test_a_checkpoint_is_where_it_belongs_unless_it_says_otherwise(
    tmp_path: Path, note: str | None
) -> None:
    folder = RunFolder.create(tmp_path)
    place = folder.checkpoint(8).path
    place.mkdir()
    if note is not None:
        (place / "metadata.json").write_text(note)
    write_checkpoint(place)
    assert folder.set_damaged_aside() == []


def test_checkpoints_on_a_disk_that_is_not_there_are_missed(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    checkpoints = folder.root / "checkpoints"
    folder.check_places()
    checkpoints.rmdir()
    folder.check_places()
    checkpoints.symlink_to(tmp_path / "unmounted")
    with pytest.raises(FolderError, match="checkpoints is a link to what is not there; bring"):
        folder.check_places()
    (tmp_path / "unmounted").mkdir()
    folder.check_places()
    checkpoints.unlink()
    checkpoints.touch()
    with pytest.raises(FolderError, match="checkpoints is no folder; bring"):
        folder.check_places()


@pytest.mark.parametrize("what", [Path.touch, Path.mkdir])
def test_what_stands_where_the_link_to_the_best_checkpoint_goes_is_refused(
    tmp_path: Path, what: Callable[[Path], None]
) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.point_to_best(folder.checkpoint(4).path)
    folder.check_places()  # wherever it leads
    folder.best.unlink()
    what(folder.best)
    with pytest.raises(FolderError, match="best is no link to a checkpoint; give it another name"):
        folder.check_places()


def test_a_folder_has_room_for_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "PATIENCE", 0.0)
    folder = RunFolder.create(tmp_path / "run")
    with folder.occupied():
        with pytest.raises(FolderError, match="run is being trained by another command"):
            folder.occupied().__enter__()
        folder.discard_unless_begun()
        assert folder.root.exists()
    with folder.occupied():
        pass
    folder.discard_unless_begun()
    assert not folder.root.exists()


def test_ranks_of_a_command_that_was_killed_may_take_to_end(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    rank = ProcessLock(folder.lock)
    assert rank.hold()
    threading.Timer(0.5, rank.release).start()
    with folder.occupied():
        pass


def test_a_run_that_left_nothing_frees_its_name(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({"name": "mine"})
    folder.metrics.touch()
    folder.discard_unless_begun()
    assert not folder.root.exists()


@pytest.mark.parametrize("left", ["report", "checkpoint"])
def test_a_run_that_left_a_result_stays(tmp_path: Path, left: str) -> None:
    folder = RunFolder.create(tmp_path / "run")
    if left == "report":
        folder.metrics.write_text('{"group": "training"}\n')
    else:
        folder.checkpoint(0).path.mkdir()
        (folder.checkpoint(0).path / RECORD_NAME).touch()
    folder.lock.touch()
    before = _everything(folder.root)
    folder.discard_unless_begun()
    assert _everything(folder.root) == before


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


@pytest.mark.parametrize(
    "line", ["garbage", "[1]", "3", "", "[" * 100_000, "\x00", '{"a": NaN}', '{"a": 1e999}']
)
def test_a_line_that_is_no_object_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "lines").write_text(f'{{"a": 1}}\n{line}\n{{"a": 2}}\n')
    with pytest.raises(FolderError, match=r"lines, line 2: this is no JSON.*; delete that line"):
        list(read_json_lines(tmp_path / "lines"))
