from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from natdgp.checkpoint.checksums import (
    FILE_NAME,
    RECORD_NAME,
    WEIGHTS_NAME,
    DamagedCheckpoint,
    verify_checksums,
)
from tests.checkpoint_files import WEIGHTS, write_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "trial.py").write_text("pass\n")
    write_checkpoint(folder, "numbers" * 300_000)  # more than is read at once
    return folder


def test_what_was_written_passes_and_determined_may_add_its_own(checkpoint: Path) -> None:
    verify_checksums(checkpoint)
    (checkpoint / "metadata.json").write_text("{}")  # Determined's, written last on a cluster
    verify_checksums(checkpoint)


def _flip_the_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", [WEIGHTS, "code/trial.py"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "is missing"),
        (_become_a_folder, "is missing"),
        (_cut, "were written"),
        (_flip_the_last_bit, "was altered"),
        (_link, "is a link"),
        (_link_to_itself, "is a link"),
        (_become_a_pipe, "is neither file nor folder"),
    ],
)
def test_a_damaged_file_is_named(
    checkpoint: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(checkpoint / name)
    with pytest.raises(DamagedCheckpoint, match=rf"{name} .*{message}"):
        verify_checksums(checkpoint)


@pytest.mark.parametrize(
    "content",
    ["", "[", "[1]", '{"weights": 3}', '{"weights": {"bytes": 1}}', "[" * 100_000, "\x00"],
    ids=["empty", "cut", "list", "number", "no checksum", "deep", "NUL"],
)
def test_a_list_that_is_none_is_named(checkpoint: Path, content: str) -> None:
    (checkpoint / FILE_NAME).write_text(content)
    with pytest.raises(DamagedCheckpoint, match=rf"{FILE_NAME} is no list of files"):
        verify_checksums(checkpoint)


def test_without_a_list_nothing_vouches(checkpoint: Path) -> None:
    (checkpoint / FILE_NAME).unlink()
    with pytest.raises(DamagedCheckpoint, match=rf"{FILE_NAME} is missing"):
        verify_checksums(checkpoint)


def _listing(checkpoint: Path) -> dict[str, Any]:
    listing: dict[str, Any] = json.loads((checkpoint / FILE_NAME).read_text())
    return listing


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "code/../../secret",
        "{tmp}/secret",
        "./code/trial.py",
        "",
        "a\0b",
        "a" * 5000,
        "\ud800",
        "/" * 5000,
    ],
    ids=["up", "around", "absolute", "dot", "none", "NUL", "long", "surrogate", "slashes"],
)
def test_a_listed_name_leads_nowhere_and_can_be_shown(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret").write_text("weights of somebody else")
    listing = _listing(checkpoint)
    listing[name.format(tmp=tmp_path)] = listing[WEIGHTS]
    (checkpoint / FILE_NAME).write_text(json.dumps(listing))
    with pytest.raises(DamagedCheckpoint, match="is missing") as refused:
        verify_checksums(checkpoint)
    str(refused.value).encode()


@pytest.mark.parametrize("name", ["code", RECORD_NAME, WEIGHTS, FILE_NAME])
def test_nothing_in_a_checkpoint_may_be_a_link(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (checkpoint / name).rename(tmp_path / name)
    (checkpoint / name).symlink_to(tmp_path / name)
    with pytest.raises(DamagedCheckpoint, match=f"{name} is a link, which may lead out"):
        verify_checksums(checkpoint)


@pytest.mark.parametrize("name", ["metadata.json", "unlisted"])
def test_not_even_what_is_not_listed(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (checkpoint / name).symlink_to(tmp_path)
    with pytest.raises(DamagedCheckpoint, match=f"{name} is a link"):
        verify_checksums(checkpoint)


@pytest.mark.parametrize("name", ["more", "code/metadata.json", f"{WEIGHTS_NAME}.data-00001"])
def test_what_came_later_is_refused(checkpoint: Path, name: str) -> None:
    (checkpoint / name).touch()
    with pytest.raises(DamagedCheckpoint, match=f"{name} was not written with its checkpoint"):
        verify_checksums(checkpoint)


@pytest.mark.parametrize("name", [RECORD_NAME, WEIGHTS, f"{WEIGHTS_NAME}.index"])
def test_a_list_without_a_model_vouches_for_none(checkpoint: Path, name: str) -> None:
    listing = _listing(checkpoint)
    del listing[name]
    for less in (listing, {}):
        (checkpoint / FILE_NAME).write_text(json.dumps(less))
        with pytest.raises(DamagedCheckpoint, match=f"{FILE_NAME} lists no "):
            verify_checksums(checkpoint)


def test_a_checkpoint_reached_by_a_link_is_as_good(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "best").symlink_to(checkpoint)
    verify_checksums(tmp_path / "best")


@pytest.fixture
def deep() -> Iterator[Path]:
    """Not under `tmp_path`: pytest clears earlier runs away by recursion, and would fail at it."""
    folder = Path(tempfile.mkdtemp(prefix="natdgp-deep-"))
    yield folder
    subprocess.run(["rm", "-r", folder], check=True)


def test_folders_may_lie_deep(deep: Path) -> None:
    write_checkpoint(deep)
    here = os.open(deep, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    verify_checksums(deep)
