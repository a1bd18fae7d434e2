import logging
from pathlib import Path

import numpy as np
import pytest

from natdgp.data.cache import cache_folder, cached
from natdgp.data.table import FloatArray

ARRAY = np.arange(6.0).reshape(3, 2)
OTHER = ARRAY + 1


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NATDGP_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build() -> FloatArray:
    return ARRAY


def never() -> FloatArray:
    raise AssertionError("built although it was kept")


def test_the_second_call_reads_what_the_first_built() -> None:
    np.testing.assert_array_equal(cached("a", build), ARRAY)
    np.testing.assert_array_equal(cached("a", never), ARRAY)


def test_another_name_is_built_anew() -> None:
    cached("a-rules1", build)
    np.testing.assert_array_equal(cached("a-rules2", lambda: OTHER), OTHER)


def test_nothing_but_the_file_is_left_in_the_folder(folder: Path) -> None:
    cached("a", build)
    assert [path.name for path in folder.iterdir()] == ["a.npz"]


def test_an_empty_variable_means_the_systems_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATDGP_CACHE_DIR", "")
    assert cache_folder().name == "natdgp"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(np.float64(5.0).tobytes())] ^= 1
    path.write_bytes(content)


def alter_the_numbers(path: Path) -> None:
    with np.load(path) as archive:
        np.savez(path, array=OTHER, checksum=archive["checksum"])


def alter_the_shape(path: Path) -> None:
    with np.load(path) as archive:
        np.savez(path, array=ARRAY.reshape(2, 3), checksum=archive["checksum"])


def drop_the_checksum(path: Path) -> None:
    np.savez(path, array=OTHER)


def pickle(path: Path) -> None:
    np.savez(path, array=np.array([object()]), checksum="")


def put_a_bare_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, OTHER)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        empty,
        flip_a_byte,
        alter_the_numbers,
        alter_the_shape,
        drop_the_checksum,
        pickle,
        put_a_bare_array,
    ],
)
def test_a_damaged_file_is_told_and_built_anew(
    damage: object, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached("a", build)
    assert callable(damage)
    damage(folder / "a.npz")
    with caplog.at_level(logging.WARNING, "natdgp.data"):
        np.testing.assert_array_equal(cached("a", build), ARRAY)
    assert "a.npz cannot be used" in caplog.text
    np.testing.assert_array_equal(cached("a", never), ARRAY)


def test_a_folder_that_cannot_be_written_costs_a_warning_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NATDGP_CACHE_DIR", str(tmp_path / "file" / "cache"))
    np.testing.assert_array_equal(cached("a", build), ARRAY)
    assert "cannot be written" in caplog.text
    assert "NATDGP_CACHE_DIR" in caplog.text
