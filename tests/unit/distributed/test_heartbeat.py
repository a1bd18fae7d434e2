from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from natdgp.distributed.heartbeat import BEAT, Heartbeat, Phase, Reading, read_heartbeat


@pytest.fixture
def file(tmp_path: Path) -> Iterator[IO[bytes]]:
    with (tmp_path / "heartbeats").open("w+b") as opened:
        yield opened


def _shown(file: IO[bytes], rank: int) -> tuple[int, int, Phase, bool]:
    reading = read_heartbeat(file, rank)
    assert isinstance(reading, Reading)
    return reading.events, reading.steps, reading.phase, reading.first


def test_what_a_rank_notes_is_read(file: IO[bytes]) -> None:
    assert read_heartbeat(file, 1) is None
    second = Heartbeat(file, 1)
    assert read_heartbeat(file, 0) is None, "that one has not begun"
    first = Heartbeat(file, 0)
    assert _shown(file, 1) == (0, 0, Phase.STARTING, True)
    second.begin(Phase.TRAINING, 6)
    second.note()
    assert _shown(file, 1) == (2, 6, Phase.TRAINING, True)
    second.wait()
    assert _shown(file, 1)[2] is Phase.WAITING
    second.end()
    assert _shown(file, 1)[2] is Phase.ENDING
    first.begin(Phase.TRAINING, 0)
    assert _shown(file, 0) == (1, 0, Phase.TRAINING, True)


def test_each_kind_of_work_is_the_first_until_a_batch_of_it_is_finished(file: IO[bytes]) -> None:
    heartbeat, seen = Heartbeat(file, 0), []
    for steps, phase in enumerate([Phase.TRAINING, Phase.VALIDATING, Phase.TRAINING]):
        heartbeat.begin(phase, steps)
        before = _shown(file, 0)
        heartbeat.finish(steps + 1)
        assert _shown(file, 0) == (before[0] + 1, steps + 1, phase, False)
        seen.append(before[3])
    assert seen == [True, True, False]


RANK = """
import os, sys
from natdgp.distributed.heartbeat import Heartbeat, Phase
assert not {'tensorflow', 'determined'} & set(sys.modules)
Heartbeat(open(sys.argv[1], 'r+b'), 3).begin(Phase.TRAINING, 41)
os.kill(os.getpid(), int(sys.argv[2]))
"""


def test_the_last_step_of_a_killed_rank_is_known(file: IO[bytes]) -> None:
    subprocess.run([sys.executable, "-c", RANK, file.name, str(int(signal.SIGKILL))], check=False)
    assert _shown(file, 3) == (1, 41, Phase.TRAINING, True)


def test_a_stopped_rank_no_longer_beats(file: IO[bytes]) -> None:
    Heartbeat(file, 0)
    command = [sys.executable, "-c", RANK, file.name, str(int(signal.SIGSTOP))]
    with subprocess.Popen(command) as stopped:
        while (reading := read_heartbeat(file, 3)) is None or reading.events == 0:
            time.sleep(0.01)
        before = [read_heartbeat(file, rank) for rank in (0, 3)]
        time.sleep(4 * BEAT)
        after = [read_heartbeat(file, rank) for rank in (0, 3)]
        stopped.kill()
    assert before[0] is not None
    assert after[0] is not None
    assert after[0].beats > before[0].beats
    assert after[1] == before[1]
