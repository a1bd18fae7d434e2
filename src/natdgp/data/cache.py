"""An array that is costly to build, kept on disk and never believed without its checksum."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs

from natdgp.data.table import FloatArray

log = logging.getLogger("natdgp.data")


def cache_folder() -> Path:
    """`NATDGP_CACHE_DIR` if that is set, else this system's cache folder of the user."""
    return Path(os.environ.get("NATDGP_CACHE_DIR") or platformdirs.user_cache_dir("natdgp"))


def cached(name: str, build: Callable[[], FloatArray]) -> FloatArray:
    """The array kept under `name`, built anew where it is absent or damaged.

    The name must say everything the array depends on. A folder that cannot be written costs a
    warning in the log, and the array is built each time.
    """
    path = cache_folder() / f"{name}.npz"
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except Exception as error:  # whatever is wrong with it, it can be built anew
        log.warning("%s cannot be used (%s); building it anew", path, error)
    array = build()
    try:
        _write(path, array)
    except OSError as error:
        log.warning(
            "%s cannot be written (%s); set NATDGP_CACHE_DIR to another folder", path, error
        )
    return array


def _checksum(array: FloatArray) -> str:
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()


def _read(path: Path) -> FloatArray:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        array: FloatArray = archive["array"]
        if _checksum(array) != str(archive["checksum"]):
            raise ValueError("its checksum does not match")
    return array


def _write(path: Path, array: FloatArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several ranks may build at once: each writes a file of its own and renames it when whole.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        np.savez(whole, array=array, checksum=_checksum(array))
        os.replace(whole, path)
