from __future__ import annotations

import pytest
import tensorflow as tf
from horovod.common.exceptions import HorovodInternalError

from natdgp.local.rank import _follows_from_another


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
