"""Whether a checkpoint's files are those that were written: their sizes and checksums."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE_NAME = "natdgp-files.json"
"""Lists the other files of a checkpoint: path in it to `{"bytes", "sha256"}`."""

RECORD_NAME = "natdgp.json"
"""What a checkpoint says about its model."""

WEIGHTS_NAME = "determined-keras-model-weights"
"""The files, named by Determined, that hold a checkpoint's variables."""

_REQUIRED = (RECORD_NAME, f"{WEIGHTS_NAME}.index", f"{WEIGHTS_NAME}.data-*")
"""Without these, there is no model to load."""

_ADDED = {"metadata.json"}
"""What Determined writes into a cluster's checkpoint after all others; nothing here reads it."""


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not what was written; the message names the file."""


def write_checksums(folder: Path) -> None:
    """List all files of a checkpoint; the last that is written to it."""
    names = sorted({*_names(folder)} - {FILE_NAME})
    files = {name: _facts(folder / name) for name in names}
    (folder / FILE_NAME).write_text(json.dumps(files, indent=2) + "\n", encoding="utf-8")


def verify_checksums(folder: Path) -> None:
    """Compare a checkpoint with its list of files.

    :raises DamagedCheckpoint: if a file is missing, cut short, altered, unreadable or not listed,
        if the list lacks what makes a model, or if anything is a link, which might lead elsewhere.
    """
    try:
        names = {*_names(folder)}
        if FILE_NAME not in names:
            listing = folder / FILE_NAME
            raise DamagedCheckpoint(
                f"{listing} is missing, so that nothing vouches for its checkpoint"
            )
        listed = _listed(folder / FILE_NAME)
        for name, facts in listed.items():
            # Only names that were found are ever opened: what is listed may lead anywhere.
            if name not in names:
                raise DamagedCheckpoint(f"{_shown(folder, name)} is missing")
            _compare(folder / name, facts)
    except OSError as error:
        raise DamagedCheckpoint(
            f"{error.filename or folder} cannot be read: {error.strerror}"
        ) from error
    for pattern in _REQUIRED:
        if not fnmatch.filter(listed, pattern):
            raise DamagedCheckpoint(f"{folder / FILE_NAME} lists no {pattern}, so it is no model's")
    for name in sorted(names - {*listed, *_ADDED, FILE_NAME}):
        raise DamagedCheckpoint(f"{_shown(folder, name)} was not written with its checkpoint")


def _names(folder: Path) -> Iterator[str]:
    """The paths of all files in a checkpoint, relative to it.

    :raises DamagedCheckpoint: at a link, or at what is neither file nor folder.
    :raises OSError: if a folder cannot be read.
    """
    folders = [""]
    while folders:
        inside = folders.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                name = inside + entry.name
                if entry.is_symlink():
                    raise DamagedCheckpoint(
                        f"{_shown(folder, name)} is a link, which may lead out of its checkpoint"
                    )
                if entry.is_dir():
                    folders.append(f"{name}/")
                elif entry.is_file():
                    yield name
                else:
                    raise DamagedCheckpoint(f"{_shown(folder, name)} is neither file nor folder")


def _listed(listing: Path) -> dict[str, tuple[int, str]]:
    try:
        files: dict[str, dict[str, Any]] = json.loads(listing.read_bytes())
        return {name: (one["bytes"], one["sha256"]) for name, one in files.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{listing} is no list of files: {error}") from error


def _compare(path: Path, facts: tuple[int, str]) -> None:
    size, digest = facts
    found = _facts(path)
    if found["bytes"] != size:
        raise DamagedCheckpoint(f"{path} has {found['bytes']} bytes; {size!r} were written")
    if found["sha256"] != digest:
        raise DamagedCheckpoint(f"{path} was altered: its checksum is not that of its writing")


def _shown(folder: Path, name: str) -> str:
    """A path whose name somebody else chose, fit for any screen."""
    return f"{folder}/{name if name.isprintable() else ascii(name)}"


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}
