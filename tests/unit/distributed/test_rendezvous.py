from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from natdgp.distributed.rendezvous import rendezvous

RANK = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import horovod.tensorflow as hvd
import tensorflow as tf
hvd.init()
if hvd.rank() == 1:
    time.sleep(float(sys.argv[1]))
total = float(hvd.allreduce(tf.constant(hvd.rank() + 1.0), op=hvd.Sum))
print(json.dumps([hvd.rank(), hvd.size(), hvd.local_rank(), hvd.cross_size(), total]))
"""
TOLD = [[0, 2, 0, 1, 3.0], [1, 2, 1, 1, 3.0]]


def _run(late: float, **variables: str) -> tuple[list[list[float]], list[str]]:
    """What two ranks tell, the second of which is so many seconds late, and their log lines."""
    with rendezvous(2) as environments:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(late)],
                env={**os.environ, **environment, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for environment in environments
        ]
        said = [rank.communicate(timeout=300) for rank in ranks]
    return [json.loads(out.splitlines()[-1]) for out, _ in said], [err for _, err in said]


def test_ranks_find_each_other() -> None:
    assert _run(0)[0] == TOLD


@pytest.mark.slow
def test_horovods_own_stall_inspector_neither_tells_nor_ends_a_stall_over_gloo() -> None:
    """Its Gloo controller reserves the list of ranks to inspect, whose length stays 0; therefore
    ranks are watched by their heartbeats. Should this fail, Horovod has been mended."""
    told, errors = _run(
        12.0,
        HOROVOD_LOG_LEVEL="warning",
        HOROVOD_STALL_CHECK_TIME_SECONDS="2",
        HOROVOD_STALL_SHUTDOWN_TIME_SECONDS="4",
    )
    assert told == TOLD
    assert not any("waiting for remainder of ranks" in error for error in errors)
