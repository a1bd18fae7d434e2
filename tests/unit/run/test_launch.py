from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from natdgp.distributed.heartbeat import Phase
from natdgp.run import launch
from natdgp.run.interruptions import handling
from natdgp.run.launch import Rank
from natdgp.run.rank import Orders
from natdgp.run.rank_channel import RankChannel
from natdgp.run.run_folder import RunFolder

SLEEPS = "import time; time.sleep(60)"


@pytest.fixture
def ranks() -> Iterator[list[Rank]]:
    """To be filled; all have ended afterwards."""
    started: list[Rank] = []
    yield started
    for rank in started:
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
    assert launch._watch(ranks, channel, 60) == [
        "natdgp train: rank 1 of 2 was ended by SIGKILL before its first step; so all end",
        "\ufffd",
    ]
    assert ranks[0].process.poll() is None


def test_a_rank_that_failed_is_told_with_its_step_and_the_end_of_what_it_said(
    channel: RankChannel, ranks: list[Rank]
) -> None:
    channel.show(1)
    assert channel.heartbeat is not None
    channel.heartbeat.begin(Phase.TRAINING, 9)
    noise = "".join(f"noise {n}\\n" for n in range(launch.TAIL))
    ranks += [_rank(SLEEPS), _rank(f"print('{noise}', end=''); raise ValueError('mine')")]
    report = launch._watch(ranks, channel, 60)
    assert report is not None
    assert (
        report[0] == "natdgp train: rank 1 of 2 failed with exit status 1 after step 9; so all end"
    )
    assert report[-1] == "ValueError: mine"
    assert len(report) == 1 + launch.TAIL


def test_a_rank_that_stalls_is_told(channel: RankChannel, ranks: list[Rank]) -> None:
    for rank in (0, 1):
        channel.show(rank)
        assert channel.heartbeat is not None
        channel.heartbeat.begin(Phase.TRAINING, 0)
        for _ in range(1 + rank):
            channel.heartbeat.finish(7)
    ranks += [_rank(SLEEPS), _rank(SLEEPS)]
    assert launch._watch(ranks, channel, 1.0) == [
        "natdgp train: of 2 ranks, rank 0 made no progress for 1 s after step 7; so all end"
    ]


def test_a_run_that_rank_0_left_unfinished_has_failed(
    channel: RankChannel, ranks: list[Rank]
) -> None:
    ranks += [_rank("pass"), _rank(SLEEPS)]
    assert launch._watch(ranks, channel, 60) == [
        "natdgp train: rank 0 ended before the run; so all end"
    ]


def test_ranks_that_do_not_end_with_the_run_are_waited_for_only_so_long(
    channel: RankChannel, ranks: list[Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.5)
    ranks += [_rank("pass"), _rank(SLEEPS)]
    channel.conclude(0)
    assert launch._watch(ranks, channel, 60) is None
    assert ranks[1].process.poll() is None


@pytest.mark.usefixtures("hangup_heeded")
def test_a_signal_asks_rank_0_where_it_has_something_to_save(
    channel: RankChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RankChannel, "heeds", True)
    with handling(partial(launch._ask, channel)):
        signal.raise_signal(signal.SIGTERM)
    assert channel.asked is signal.SIGTERM


@pytest.mark.usefixtures("hangup_heeded")
@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGHUP, SystemExit)]
)
def test_a_signal_before_there_is_anything_to_save_ends(
    channel: RankChannel, number: signal.Signals, end: type[BaseException]
) -> None:
    with pytest.raises(end), handling(partial(launch._ask, channel)):
        signal.raise_signal(number)
    assert channel.asked is None


PARENT = f"""
import subprocess, sys, time
print("started", subprocess.Popen([sys.executable, "-c", "{SLEEPS}"]).pid, flush=True)
time.sleep(60)
"""


def test_leaving_a_run_leaves_no_process(
    tmp_path: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor what ranks have started, nor any that is stopped."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{PARENT}'\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with tempfile.TemporaryFile() as file, folder.occupied() as lock:
        orders = Orders(file.fileno(), "/runs/a", [], False, None, False)
        with launch._started(orders, 3, {"OMP_NUM_THREADS": "7"}, lock) as ranks:
            while not all(rank.last_lines() for rank in ranks[1:]):
                time.sleep(0.01)
            # Rank 0 writes to the screen. Empty, while the system gets the process going.
            while "HOROVOD_RANK" not in psutil.Process(ranks[0].process.pid).environ():
                time.sleep(0.01)
            environments = [psutil.Process(rank.process.pid).environ() for rank in ranks]
            places = {Path(one["TMPDIR"]) for one in environments}
            assert [place.is_dir() for place in places] == [True]
            started = [int(rank.last_lines()[0].split()[1]) for rank in ranks[1:]]
            os.kill(ranks[1].process.pid, signal.SIGSTOP)
            os.kill(started[0], signal.SIGSTOP)
    assert [one["HOROVOD_RANK"] for one in environments] == ["0", "1", "2"]
    assert {one["OMP_NUM_THREADS"] for one in environments} == {"7"}
    assert {rank.process.returncode for rank in ranks} == {-signal.SIGKILL}
    assert [place.exists() for place in places] == [False]
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in started if psutil.pid_exists(pid)])
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
