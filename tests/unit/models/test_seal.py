from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from natdgp.models.seal import FILE_NAME, DamagedCheckpoint, check_seal, seal


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / "code").mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(range(256)) * 8192)  # more than is read at once
    (folder / "code" / "trial.py").write_text("pass\n")
    seal(folder)
    return folder


def test_what_was_written_passes_and_more_may_come(checkpoint: Path) -> None:
    check_seal(checkpoint)
    (checkpoint / "metadata.json").write_text("{}")  # Determined's, written last on a cluster
    check_seal(checkpoint)


def test_a_checkpoint_may_be_sealed_anew(checkpoint: Path) -> None:
    (checkpoint / "weights").write_text("others")
    seal(checkpoint)
    check_seal(checkpoint)


def _flip_the_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["weights", "code/trial.py"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "is missing"),
        (_become_a_folder, "is missing"),
        (_cut, "were written"),
        (_flip_the_last_bit, "was altered"),
        (_link, "through a link"),
    ],
)
def test_a_damaged_file_is_named(
    checkpoint: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(checkpoint / name)
    with pytest.raises(DamagedCheckpoint, match=rf"{name} .*{message}"):
        check_seal(checkpoint)


@pytest.mark.parametrize("content", ["", "[", "[1]", '{"weights": 3}', '{"weights": {"bytes": 1}}'])
def test_a_list_that_is_none_is_named(checkpoint: Path, content: str) -> None:
    (checkpoint / FILE_NAME).write_text(content)
    with pytest.raises(DamagedCheckpoint, match=rf"{FILE_NAME} is no list of files"):
        check_seal(checkpoint)


def test_without_a_list_nothing_vouches(checkpoint: Path) -> None:
    (checkpoint / FILE_NAME).unlink()
    with pytest.raises(DamagedCheckpoint, match=rf"{FILE_NAME} is missing"):
        check_seal(checkpoint)


@pytest.mark.parametrize("name", ["../secret", "code/../../secret", "{tmp}/secret"])
def test_no_path_leads_out_of_a_checkpoint(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("weights of somebody else")
    listing = json.loads((checkpoint / FILE_NAME).read_text())
    listing[name.format(tmp=tmp_path)] = listing["weights"]
    (checkpoint / FILE_NAME).write_text(json.dumps(listing))
    with pytest.raises(DamagedCheckpoint, match="leads out of its checkpoint"):
        check_seal(checkpoint)


def test_a_folder_that_is_a_link_leads_out(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "code").rename(tmp_path / "code")
    (checkpoint / "code").symlink_to(tmp_path / "code")
    with pytest.raises(DamagedCheckpoint, match="leads out of its checkpoint, or through a link"):
        check_seal(checkpoint)


def test_a_checkpoint_reached_by_a_link_is_as_good(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "best").symlink_to(checkpoint)
    check_seal(tmp_path / "best")
