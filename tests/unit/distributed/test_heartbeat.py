from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from natdgp.distributed.heartbeat import BEAT, Phase, Pulse, Reading, read_pulse


def _notes(reading: Reading | None) -> tuple[int, int, Phase]:
    assert reading is not None
    return reading.events, reading.steps, reading.phase


def test_a_rank_has_no_pulse_before_it_starts(tmp_path: Path) -> None:
    assert read_pulse(tmp_path, 0) is None
    (tmp_path / "pulse-0").touch()  # it is being made
    assert read_pulse(tmp_path, 0) is None


def test_what_a_rank_notes_is_read(tmp_path: Path) -> None:
    pulse, other = Pulse(tmp_path, 1), Pulse(tmp_path, 0)
    assert _notes(read_pulse(tmp_path, 1)) == (0, 0, Phase.STARTING)
    pulse.note(6)
    pulse.note(7)
    assert _notes(read_pulse(tmp_path, 1)) == (2, 7, Phase.TRAINING)
    pulse.rest()
    assert _notes(read_pulse(tmp_path, 1)) == (2, 7, Phase.BETWEEN)
    pulse.end()
    assert _notes(read_pulse(tmp_path, 1)) == (2, 7, Phase.ENDING)
    other.note(0)
    assert _notes(read_pulse(tmp_path, 0)) == (1, 0, Phase.TRAINING)


RANK = """
import os, signal, sys
from pathlib import Path
from natdgp.distributed.heartbeat import Pulse
assert not {'tensorflow', 'determined'} & set(sys.modules)
Pulse(Path(sys.argv[1]), 3).note(41)
os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


def test_the_last_step_of_a_killed_rank_is_known(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", RANK, tmp_path, "SIGKILL"], check=False)
    assert _notes(read_pulse(tmp_path, 3)) == (1, 41, Phase.TRAINING)


def test_a_stopped_rank_no_longer_beats(tmp_path: Path) -> None:
    Pulse(tmp_path, 0)
    stopped = subprocess.Popen([sys.executable, "-c", RANK, tmp_path, "SIGSTOP"])
    while read_pulse(tmp_path, 3) is None or _notes(read_pulse(tmp_path, 3))[0] == 0:
        time.sleep(0.01)
    before = [read_pulse(tmp_path, rank) for rank in (0, 3)]
    time.sleep(4 * BEAT)
    after = [read_pulse(tmp_path, rank) for rank in (0, 3)]
    stopped.kill()
    stopped.wait()
    assert before[0] is not None
    assert after[0] is not None
    assert after[0].beats > before[0].beats
    assert after[1] == before[1]
