from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from natdgp.distributed import rank_processes
from natdgp.distributed.heartbeat import Phase
from natdgp.distributed.rank_channel import RankChannel
from natdgp.distributed.rank_processes import Rank, started, watch

SLEEPS = "import time; time.sleep(60)"


@pytest.fixture
def ranks() -> Iterator[list[Rank]]:
    """To be filled; all have ended afterwards."""
    running: list[Rank] = []
    yield running
    for rank in running:
        assert rank.said is not None
        with rank.said, rank.process:
            rank.process.kill()


def _rank(code: str) -> Rank:
    said = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with the rank
    command = [sys.executable, "-c", code]
    return Rank(subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT), said)


def test_a_rank_that_was_killed_is_told_with_what_it_said(
    channel: RankChannel, ranks: list[Rank]
) -> None:
    ranks += [_rank(SLEEPS), _rank("import os; os.write(1, b'\\xff'); os.kill(os.getpid(), 9)")]
    assert watch(ranks, channel, 60) == [
        "rank 1 of 2 was ended by SIGKILL before its first step",
        "\ufffd",
    ]
    assert ranks[0].process.poll() is None


def test_a_rank_that_failed_is_told_with_its_step_and_the_end_of_what_it_said(
    channel: RankChannel, ranks: list[Rank]
) -> None:
    channel.show(1)
    assert channel.heartbeat is not None
    channel.heartbeat.begin(Phase.TRAINING, 9)
    noise = "".join(f"noise {n}\\n" for n in range(rank_processes.TAIL))
    ranks += [_rank(SLEEPS), _rank(f"print('{noise}', end=''); raise ValueError('mine')")]
    report = watch(ranks, channel, 60)
    assert report is not None
    assert report[0] == "rank 1 of 2 failed with exit status 1 after step 9"
    assert report[-1] == "ValueError: mine"
    assert len(report) == 1 + rank_processes.TAIL


def test_a_rank_that_stalls_is_told(channel: RankChannel, ranks: list[Rank]) -> None:
    for rank in (0, 1):
        channel.show(rank)
        assert channel.heartbeat is not None
        channel.heartbeat.begin(Phase.TRAINING, 0)
        for _ in range(1 + rank):
            channel.heartbeat.finish(7)
    ranks += [_rank(SLEEPS), _rank(SLEEPS)]
    assert watch(ranks, channel, 1.0) == [
        "of 2 ranks, rank 0 made no progress for 1 s after step 7"
    ]


def test_a_run_that_rank_0_left_unfinished_has_failed(
    channel: RankChannel, ranks: list[Rank]
) -> None:
    ranks += [_rank("pass"), _rank(SLEEPS)]
    assert watch(ranks, channel, 60) == ["rank 0 ended before the run"]


def test_ranks_that_do_not_end_with_the_run_are_waited_for_only_so_long(
    channel: RankChannel, ranks: list[Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_processes, "GRACE", 0.5)
    ranks += [_rank("pass"), _rank(SLEEPS)]
    channel.conclude(0)
    assert watch(ranks, channel, 60) is None
    assert ranks[1].process.poll() is None


PARENT = f"""
import subprocess, sys, time
print("started", subprocess.Popen([sys.executable, "-c", "{SLEEPS}"]).pid, flush=True)
time.sleep(60)
"""


def test_leaving_them_leaves_no_process() -> None:
    """Nor what ranks have started, nor any that is stopped."""
    with started([sys.executable, "-c", PARENT], 3, {"OMP_NUM_THREADS": "7"}, []) as ranks:
        while not all(rank.last_lines() for rank in ranks[1:]):
            time.sleep(0.01)
        # Rank 0 writes to the screen. Empty, while the system gets the process going.
        while "HOROVOD_RANK" not in psutil.Process(ranks[0].process.pid).environ():
            time.sleep(0.01)
        environments = [psutil.Process(rank.process.pid).environ() for rank in ranks]
        places = {Path(one["TMPDIR"]) for one in environments}
        assert [place.is_dir() for place in places] == [True]
        offspring = [int(rank.last_lines()[0].split()[1]) for rank in ranks[1:]]
        os.kill(ranks[1].process.pid, signal.SIGSTOP)
        os.kill(offspring[0], signal.SIGSTOP)
    assert [one["HOROVOD_RANK"] for one in environments] == ["0", "1", "2"]
    assert {one["OMP_NUM_THREADS"] for one in environments} == {"7"}
    assert {rank.process.returncode for rank in ranks} == {-signal.SIGKILL}
    assert [place.exists() for place in places] == [False]
    _, alive = psutil.wait_procs(
        [psutil.Process(pid) for pid in offspring if psutil.pid_exists(pid)]
    )
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
