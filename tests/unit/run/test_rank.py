from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from horovod.common.exceptions import HorovodInternalError

from natdgp.checkpoint.checksums import DamagedCheckpoint
from natdgp.run.exchange import Exchange, Orders, Verdict
from natdgp.run.rank import _follows_from_another, _lead
from natdgp.run.run_folder import FolderError, RunFolder


@pytest.mark.parametrize(
    ("error", "follows"),
    [
        (HorovodInternalError("connection reset"), True),
        (tf.errors.UnknownError(None, None, "connection reset"), True),
        (ValueError("the horovod data are not there"), False),
        (ModuleNotFoundError("No module named 'horovod.mine'"), False),
        (tf.errors.InvalidArgumentError(None, None, "HorovodAllreduce of my own shape"), False),
    ],
)
def test_only_a_failed_collective_follows_from_another_rank(
    error: Exception, follows: bool
) -> None:
    assert _follows_from_another(error) is follows


@pytest.mark.parametrize("problem", [DamagedCheckpoint, FolderError])
def test_what_is_wrong_with_a_folder_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: type[Exception]
) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise problem("natdgp.json has 0 bytes")

    monkeypatch.setattr("natdgp.run.run_session.train_and_report", refuse)
    monkeypatch.setattr("sys.argv", [])
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({})
    orders = Orders(str(folder.root), command=[], live=False, terminal=False, width=80)
    assert _lead(Exchange(tmp_path), orders) == Verdict(refused="natdgp.json has 0 bytes")
