"""Files that are there whole or not at all, whatever becomes of the process or the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf


class NotSaved(RuntimeError):
    """The disk refused what a run has to keep; the message names the file and the reason."""


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Around all that writes to a path.

    :raises NotSaved: for what the system or TensorFlow says against it.
    """
    try:
        yield
    except shutil.Error as error:  # of several files: source, copy and reason of each
        _, copy, why = error.args[0][0]
        raise NotSaved(f"{copy} cannot be written: {why}") from error
    except OSError as error:
        raise NotSaved(f"{path} cannot be written: {error.strerror or error}") from error
    except tf.errors.OpError as error:
        raise NotSaved(f"{path} cannot be written: {error.message}") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file aside, have it on disk, and give it its name.

    :raises NotSaved: if the disk refuses; what had that name before is still there.
    """
    aside = path.with_name(f".{path.name}.partial")
    with saving(path):
        try:
            with aside.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        settle(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append to a file of lines, and have the line on disk when this returns.

    :raises NotSaved: if the disk refuses; a part of the line may be there, without its end.
    """
    with saving(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def settle_all(folder: Path) -> None:
    """Have all that a folder holds on disk when this returns."""
    for path in (*folder.rglob("*"), folder):
        settle(path)


def settle(path: Path) -> None:
    """Have a file's content, or a folder's names, on disk when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
