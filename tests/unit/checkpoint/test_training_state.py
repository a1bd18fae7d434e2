"""What a run needs besides its model to go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from natdgp.checkpoint.checksums import DamagedCheckpoint
from natdgp.checkpoint.training_state import (
    AGGREGATED_NAME,
    STATE_NAME,
    read_aggregated,
    read_state,
    write_aggregated,
    write_state,
)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_state(tmp_path) == {}
    state = {"step": 3, "best": 0.1 + 0.2, "callbacks": {"a": {"wait": None}}}
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b"3"])
def test_what_is_no_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE_NAME).write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=f"{STATE_NAME} is no state of a run"):
        read_state(tmp_path)


@pytest.mark.parametrize(("rank", "expected"), [(0, [1.0, 2.0]), (1, [0.0, 0.0])])
def test_only_rank_0_goes_on_with_what_was_gathered(
    tmp_path: Path, rank: int, expected: list[float]
) -> None:
    write_aggregated(tmp_path, tf.Variable([1.0, 2.0]))
    aggregated = tf.Variable([7.0, 7.0])  # of before
    read_aggregated(tmp_path, aggregated, rank=rank)
    np.testing.assert_array_equal(aggregated, expected)


def test_a_checkpoint_that_kept_nothing_is_gone_on_with(tmp_path: Path) -> None:
    aggregated = tf.Variable([7.0, 7.0])
    assert not (tmp_path / AGGREGATED_NAME).exists()
    read_aggregated(tmp_path, aggregated, rank=0)
    np.testing.assert_array_equal(aggregated, [0.0, 0.0])
