"""Whether all trials of a search see the same data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natdgp.data.table import DataError


def fingerprint_of(data: Mapping[str, Any]) -> str:
    """Of the section `data`, and of the file that it names, if it does.

    :raises DataError: if that file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode())
    if "path" in data:
        path = Path(data["path"])
        try:
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
        except OSError as error:
            raise DataError(f"data.path: {path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
