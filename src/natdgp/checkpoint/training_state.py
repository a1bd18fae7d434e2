"""What a run needs besides its model to go on: the loop's state, and gradients of a step begun."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from natdgp.checkpoint.checksums import DamagedCheckpoint

STATE_NAME = "natdgp-state.json"
AGGREGATED_NAME = "natdgp-aggregated.npy"


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write plain values into a checkpoint's folder."""
    # What callbacks of a user's own remember may be infinite, or NumPy's.
    text = json.dumps(state, indent=2, default=lambda value: value.tolist())
    (folder / STATE_NAME).write_text(text + "\n", encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """What :func:`write_state` wrote; nothing, if it did not.

    :raises DamagedCheckpoint: if it is something else.
    """
    path = folder / STATE_NAME
    if not path.is_file():
        return {}
    try:
        state = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedCheckpoint(f"{path} is no state of a run: {error}") from error
    if not isinstance(state, dict):
        raise DamagedCheckpoint(f"{path} is no state of a run")
    return state


def write_aggregated(folder: Path, aggregated: tf.Variable) -> None:
    """Write the gradients of batches since the last step, as rank 0 has gathered them.

    They are no part of the model's variables: runs that aggregate otherwise, or not at all, can
    begin with that checkpoint too.
    """
    np.save(folder / AGGREGATED_NAME, aggregated.numpy(), allow_pickle=False)


def read_aggregated(folder: Path, aggregated: tf.Variable, *, rank: int) -> None:
    """Go on with what a checkpoint has gathered, on rank 0; the others begin with nothing."""
    aggregated.assign(tf.zeros_like(aggregated))
    if rank == 0 and (folder / AGGREGATED_NAME).is_file():
        aggregated.assign(np.load(folder / AGGREGATED_NAME, allow_pickle=False))
