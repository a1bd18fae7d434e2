from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from natdgp.run.process_lock import ProcessLock

ASLEEP = [sys.executable, "-c", "input()"]


def test_one_process_at_a_time_has_the_lock(tmp_path: Path) -> None:
    first, second = (ProcessLock(tmp_path / "lock") for _ in range(2))
    assert first.hold()
    assert not second.hold()
    first.release()
    assert second.hold()
    second.release()


def test_children_that_inherit_the_lock_hold_it_until_they_end(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "lock")
    assert lock.hold()
    with subprocess.Popen(ASLEEP, stdin=subprocess.PIPE, pass_fds=[lock.fileno()]) as child:
        lock.release()
        assert not lock.hold()
        child.kill()
        child.wait()
        assert lock.hold(patience=30)
    lock.release()
