from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf
from horovod.common.exceptions import HorovodInternalError

from natdgp.checkpoint.checksums import DamagedCheckpoint
from natdgp.distributed.horovod_reducer import lost_another_rank
from natdgp.distributed.rank_channel import RankChannel
from natdgp.run.exit_status import MISUSED, REFUSED
from natdgp.run.rank import Orders, train
from natdgp.run.run_folder import FolderError, RunFolder


@pytest.mark.parametrize(
    ("error", "follows"),
    [
        (HorovodInternalError("connection reset"), True),
        (tf.errors.UnknownError(None, None, "connection reset"), True),
        (ValueError("the horovod data are not there"), False),
        (tf.errors.InvalidArgumentError(None, None, "HorovodAllreduce of my own shape"), False),
    ],
)
def test_only_a_failed_collective_follows_from_another_rank(
    error: Exception, follows: bool
) -> None:
    assert lost_another_rank(error) is follows


@pytest.mark.parametrize("problem", [DamagedCheckpoint, FolderError])
@pytest.mark.parametrize("of_search", [False, True])
def test_what_is_wrong_with_a_folder_is_refused_in_words(
    folder: RunFolder,
    channel: RankChannel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: type[Exception],
    of_search: bool,
) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise problem("natdgp.json has 0 bytes")

    monkeypatch.setattr("natdgp.run.run_session.train_and_report", refuse)
    folder.write_config({})
    orders = Orders(0, str(folder.root), command=[], live=False, width=80, of_search=of_search)
    assert train(orders, channel, leads=True) == (REFUSED if of_search else MISUSED)
    said = "natdgp.json has 0 bytes\n"
    assert capsys.readouterr().err == (said if of_search else f"natdgp train: {said}")
