from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from natdgp.run.process_lock import Lifeline

WATCHER = """
import sys, time
from pathlib import Path
from natdgp.run.process_lock import Lifeline
Lifeline(Path(sys.argv[1])).watch(*map(int, sys.argv[2:]))
assert not {'tensorflow', 'determined'} & set(sys.modules)
print('here', flush=True)
time.sleep(60)
"""
HOLDER = """
import sys, time
from pathlib import Path
from natdgp.run.process_lock import Lifeline
lifeline = Lifeline(Path(sys.argv[1]))
assert lifeline.hold()
print('here', flush=True)
time.sleep(60)
"""


@contextmanager
def _started(script: str, lock: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lock), *more], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        yield process
        process.kill()


def test_a_process_ends_when_the_lifeline_is_let_go(tmp_path: Path) -> None:
    lifeline = Lifeline(tmp_path / "lock")
    assert lifeline.hold()
    with _started(WATCHER, tmp_path / "lock") as watcher:
        with pytest.raises(subprocess.TimeoutExpired):
            watcher.wait(timeout=0.5)
        lifeline.release()
        assert watcher.wait(timeout=30) == 1


def test_a_process_ends_when_the_holder_is_killed_and_another_may_hold_then(
    tmp_path: Path,
) -> None:
    lock = tmp_path / "lock"
    with _started(HOLDER, lock) as holder, _started(WATCHER, lock) as watcher:
        assert not Lifeline(lock).hold()
        holder.kill()
        assert watcher.wait(timeout=30) == 1
        lifeline = Lifeline(lock)
        assert lifeline.hold(patience=30)
        lifeline.release()


def test_a_lifeline_that_is_shared_is_free_when_the_last_has_let_go(tmp_path: Path) -> None:
    first, second, third = (Lifeline(tmp_path / "lock") for _ in range(3))
    assert first.hold(shareable=True)
    second.join()
    assert not third.hold()
    first.release()
    assert not third.hold()
    second.release()
    assert third.hold()
    with pytest.raises(BlockingIOError):
        second.join()
    third.release()


def test_a_process_lives_by_the_holder_that_started_it_alone(tmp_path: Path) -> None:
    """Should that one have been killed at once, another may hold the lock already."""
    lock = tmp_path / "lock"
    lifeline = Lifeline(lock)
    assert lifeline.hold()
    own = str(os.getpid())
    with _started(WATCHER, lock, own) as watcher, pytest.raises(subprocess.TimeoutExpired):
        watcher.wait(timeout=0.5)
    other = [sys.executable, "-c", WATCHER, str(lock), str(os.getppid())]
    done = subprocess.run(other, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    lifeline.release()
