from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

CHILD = """
import os, signal, sys, time
from natdgp.distributed.parent_process import end_with_parent
if sys.argv[2] != "linux":
    sys.platform = sys.argv[2]
end_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
if sys.argv[3] == "stopped":
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid()), *sys.argv[2:]])
"""


@pytest.mark.parametrize(
    ("platform", "state"), [("linux", "runs"), ("linux", "stopped"), ("darwin", "runs")]
)
def test_a_process_ends_with_its_parent(platform: str, state: str) -> None:
    command = [sys.executable, "-c", PARENT, CHILD, platform, state]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_process_whose_parent_has_ended_already_does_not_begin() -> None:
    command = [sys.executable, "-c", CHILD, str(os.getppid()), "linux", "runs"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
