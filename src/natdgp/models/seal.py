"""Whether a checkpoint's files are those that were written: their sizes and checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FILE_NAME = "natdgp-files.json"
"""Lists the other files of a checkpoint: path in it to `{"bytes", "sha256"}`."""


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not what was written; the message names the file."""


def seal(folder: Path) -> None:
    """List all files of a checkpoint; the last that is written to it."""
    listing = folder / FILE_NAME
    files = {
        path.relative_to(folder).as_posix(): _facts(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != listing
    }
    listing.write_text(json.dumps(files, indent=2) + "\n", encoding="utf-8")


def check_seal(folder: Path) -> None:
    """Compare a checkpoint with its list of files. Files beyond the list are not looked at.

    :raises DamagedCheckpoint: if a file is missing, cut short, altered, or a link, which might lead
        out of the folder.
    """
    listing = folder / FILE_NAME
    if not listing.is_file():
        raise DamagedCheckpoint(f"{listing} is missing, so that nothing vouches for its checkpoint")
    try:
        files: dict[str, dict[str, Any]] = json.loads(listing.read_text(encoding="utf-8"))
        facts = {name: (one["bytes"], one["sha256"]) for name, one in files.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedCheckpoint(f"{listing} is no list of files: {error}") from error
    root = folder.resolve()
    for name, (size, digest) in facts.items():
        path = folder / name
        if path.resolve() != root / name or not path.resolve().is_relative_to(root):
            raise DamagedCheckpoint(f"{path} leads out of its checkpoint, or through a link")
        if not path.is_file():
            raise DamagedCheckpoint(f"{path} is missing")
        found = _facts(path)
        if found["bytes"] != size:
            raise DamagedCheckpoint(f"{path} has {found['bytes']} bytes; {size} were written")
        if found["sha256"] != digest:
            raise DamagedCheckpoint(f"{path} was altered: its checksum is not that of its writing")


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}
