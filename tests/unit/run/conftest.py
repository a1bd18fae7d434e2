from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from natdgp.run.run_folder import Checkpoint, RunFolder
from tests.checkpoint_files import write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


@pytest.fixture
def put(folder: RunFolder) -> Callable[[int], Checkpoint]:
    """Puts a checkpoint after so many steps into the folder."""

    def put(steps: int) -> Checkpoint:
        checkpoint = folder.checkpoint(steps)
        checkpoint.path.mkdir()
        write_checkpoint(checkpoint.path)
        return checkpoint

    return put
