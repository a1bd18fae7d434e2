"""Files that make a checkpoint, without a model in them."""

from __future__ import annotations

from pathlib import Path

from natdgp.checkpoint.checksums import RECORD_NAME, WEIGHTS_NAME, write_checksums

WEIGHTS = f"{WEIGHTS_NAME}.data-00000-of-00001"


def write_checkpoint(folder: Path, weights: str = "numbers") -> None:
    """Write one, checksums included; the folder has to exist, and what it holds is listed too."""
    (folder / RECORD_NAME).write_text("{}")
    (folder / f"{WEIGHTS_NAME}.index").write_text("index")
    (folder / WEIGHTS).write_text(weights)
    write_checksums(folder)
