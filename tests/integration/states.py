"""All that two runs have written, compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from natdgp.checkpoint.checksums import WEIGHTS_NAME
from natdgp.checkpoint.training_state import AGGREGATED_NAME, read_state
from natdgp.run.run_folder import RunFolder, read_json_lines


def variables(checkpoint: Path) -> dict[str, Any]:
    """Every saved variable: parameters, Adam's moments, gamma, learning rate, step."""
    path = str(checkpoint / WEIGHTS_NAME)
    saved = {
        name: tf.train.load_variable(path, name)
        for name, _ in tf.train.list_variables(path)
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }
    if (checkpoint / AGGREGATED_NAME).is_file():
        saved["aggregated"] = np.load(checkpoint / AGGREGATED_NAME)
    return saved


def memories(checkpoint: Path) -> dict[str, Any]:
    """What the loop and its callbacks remember: the best value, how long they have waited."""
    return dict(_leaves("state", read_state(checkpoint)))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        pairs = ((str(key), inner) for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        pairs = ((str(index), inner) for index, inner in enumerate(value))
    else:
        yield path, value
        return
    yield path, type(value).__name__
    for key, inner in pairs:
        yield from _leaves(f"{path}.{key}", inner)


def reports(folder: RunFolder) -> list[tuple[str, int, dict[str, float]]]:
    """Every line of the journal but for the time of day."""
    return [
        (entry["group"], entry["steps_completed"], entry["metrics"])
        for entry in read_json_lines(folder.metrics)
    ]


def assert_same_run(one: RunFolder, other: RunFolder, *, rtol: float = 0.0) -> None:
    """The last checkpoint and every report of two runs are equal.

    :param rtol: 0 compares to the last bit.
    """
    (ours, theirs) = (folder.checkpoints()[-1] for folder in (one, other))
    assert ours.steps == theirs.steps
    assert_same_checkpoint(ours.path, theirs.path, rtol=rtol)
    lines = reports(one), reports(other)
    assert [line[:2] for line in lines[0]] == [line[:2] for line in lines[1]]
    for (group, steps, metrics), (_, _, others) in zip(*lines, strict=True):
        assert_same_figures(metrics, others, f"{group} at {steps}", rtol=rtol)


def assert_same_checkpoint(one: Path, other: Path, *, rtol: float = 0.0) -> None:
    """Every saved variable of two checkpoints is equal, and all that callbacks remember."""
    expected, got = variables(one), variables(other)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        _assert_close(got[name], value, rtol, name)
    memory, others = memories(one), memories(other)
    assert memory.keys() == others.keys()
    for name, value in memory.items():
        if isinstance(value, (float, np.ndarray, np.generic)):
            _assert_close(others[name], value, rtol, name)
        else:
            assert others[name] == value, name


def assert_same_figures(
    one: Mapping[str, float], other: Mapping[str, float], of: str, *, rtol: float = 0.0
) -> None:
    """Two reports are equal."""
    assert one.keys() == other.keys()
    for name, number in one.items():
        _assert_close(other[name], number, rtol, f"{name} of {of}")


def _assert_close(got: Any, expected: Any, rtol: float, name: str) -> None:
    if rtol == 0:
        np.testing.assert_array_equal(got, expected, err_msg=name)
    else:
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol, err_msg=name)
