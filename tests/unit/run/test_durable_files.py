from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from natdgp.run.durable_files import NotSaved, append_line, saving, write_whole
from natdgp.run.run_folder import link_to


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "one")
    write_whole(tmp_path / "file", "other")
    assert (tmp_path / "file").read_text() == "other"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_refusal_leaves_what_was_there_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "file", "one")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(NotSaved, match="file cannot be written: No space left on device"):
        write_whole(tmp_path / "file", "other")
    assert (tmp_path / "file").read_text() == "one"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_lines_are_appended(tmp_path: Path) -> None:
    append_line(tmp_path / "lines", "one")
    append_line(tmp_path / "lines", "other")
    assert (tmp_path / "lines").read_text() == "one\nother\n"


def test_a_line_that_cannot_be_appended_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotSaved, match="nowhere/lines cannot be written: No such file"):
        append_line(tmp_path / "nowhere" / "lines", "one")


def test_of_several_files_that_cannot_be_copied_the_first_is_told(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    for name in ("a.py", "b.py"):
        (tmp_path / "code" / name).symlink_to("nowhere")
    message = r"copy/[ab]\.py cannot be written: .*No such file"
    with pytest.raises(NotSaved, match=message), saving(tmp_path / "copy"):
        shutil.copytree(tmp_path / "code", tmp_path / "copy")


def test_a_link_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotSaved, match="nowhere/best cannot be written: No such file"):
        link_to(tmp_path / "nowhere" / "best", tmp_path)


def test_what_tensorflow_says_against_it_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(NotSaved, match="weights cannot be written: disk full"),
        saving(tmp_path / "weights"),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, "disk full")


def test_other_errors_come_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), saving(tmp_path):
        raise ZeroDivisionError
