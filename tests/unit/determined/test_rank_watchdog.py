"""Two processes that watch each other, as the ranks of a task do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from natdgp.distributed.watchdog import VARIABLE

RANK = """
import sys, time
from types import SimpleNamespace
from natdgp.determined.rank_watchdog import RankWatchdog
from natdgp.distributed.heartbeat import Phase
rank, allocation, hangs = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "hangs"
distributed = SimpleNamespace(rank=2 + rank, local_rank=rank, size=4, local_size=2)
watchdog = RankWatchdog(distributed, allocation)
watchdog.begin()
watchdog.heartbeat.begin(Phase.TRAINING, 0)
for step in range(7 + (not hangs)):
    watchdog.heartbeat.finish(step)
print("trains", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize(
    ("stops", "told"),
    [(False, "rank 3 made no progress"), (True, "rank 3 gave no sign of life")],
)
def test_a_rank_that_keeps_others_waiting_ends_all(tmp_path: Path, stops: bool, told: str) -> None:
    allocation = str(uuid.uuid4())
    environment = {**os.environ, VARIABLE: "2", "TMPDIR": str(tmp_path)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), allocation, "hangs" if rank else "waits"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "trains\n"
    if stops:
        ranks[1].send_signal(signal.SIGSTOP)
    _, said = ranks[0].communicate(timeout=60)
    assert ranks[0].returncode == 1
    assert f"Of 4 ranks, {told} for 2 s after step 6; so all end." in said
    assert VARIABLE in said
    if stops:
        ranks[1].kill()
    assert "Of 4 ranks" not in ranks[1].communicate(timeout=60)[1], "one of them tells"
    assert ranks[1].returncode == (-signal.SIGKILL if stops else 1)
