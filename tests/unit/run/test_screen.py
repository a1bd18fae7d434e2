from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from natdgp.run.screen import Screen, lasting_screen

pytestmark = pytest.mark.usefixtures("hangup_heeded")

SPEAKER = """
import signal, sys, time
from natdgp.run.screen import lasting_screen

received = []
signal.signal(signal.SIGHUP, lambda number, frame: received.append(number))
with lasting_screen():
    for _ in range(100):
        print("a line", flush=True)
        time.sleep(0.01)
with open(sys.argv[1], "w") as file:
    file.write(f"{len(received)}")
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_asks_once_to_end_and_breaks_nothing(
    tmp_path: Path, stream: str
) -> None:
    script = SPEAKER if stream == "stdout" else SPEAKER.replace("flush=True", "file=sys.stderr")
    out, error = (subprocess.PIPE if stream == one else None for one in ("stdout", "stderr"))
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "note")], stdout=out, stderr=error
    ) as process:
        pipe = getattr(process, stream)
        assert pipe.readline() == b"a line\n"
        pipe.close()
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "note").read_text() == "1"


def test_a_disk_that_is_full_is_a_screen_that_is_gone(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SPEAKER, str(tmp_path / "note")],
            stdout=full,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0
    assert (tmp_path / "note").read_text() == "1"


def test_what_the_encoding_lacks_is_written_as_an_escape() -> None:
    written = io.BytesIO()
    screen = Screen(io.TextIOWrapper(written, encoding="ascii"))
    screen.write("ÿ, a target")
    screen.flush()
    assert written.getvalue() == b"\\xff, a target"


def test_a_screen_is_in_all_else_the_stream_and_goes_with_the_block() -> None:
    before = sys.stdout, sys.stderr
    with lasting_screen():
        assert sys.stdout is not before[0]
        assert sys.stdout.isatty() == before[0].isatty()
        assert sys.stderr.encoding == before[1].encoding
    assert (sys.stdout, sys.stderr) == before


def test_a_process_that_saves_nothing_ends_as_by_a_signal() -> None:
    handled = "signal.signal(signal.SIGHUP, lambda number, frame: received.append(number))"
    script = SPEAKER.replace(handled, "")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", script, "-"], stdout=writing, check=False)
    os.close(writing)
    assert done.returncode == -signal.SIGHUP
