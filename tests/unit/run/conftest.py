from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from natdgp.run.rank_channel import RankChannel
from natdgp.run.run_folder import Checkpoint, RunFolder
from tests.checkpoint_files import write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


@pytest.fixture
def channel() -> Iterator[RankChannel]:
    """Of two ranks."""
    with tempfile.TemporaryFile(buffering=0) as file:
        yield RankChannel(file, 2)


@pytest.fixture
def put(folder: RunFolder) -> Callable[[int], Checkpoint]:
    """Puts a checkpoint after so many steps into the folder."""

    def put(steps: int) -> Checkpoint:
        checkpoint = folder.checkpoint(steps)
        checkpoint.path.mkdir()
        write_checkpoint(checkpoint.path)
        return checkpoint

    return put
