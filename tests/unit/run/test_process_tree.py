from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil

from natdgp.run.process_tree import descent, end_family

PARENT = """
import subprocess, sys
children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in "ab"]
print(*(child.pid for child in children), flush=True)
children[0].wait()
"""


def _runs(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def test_a_process_ends_with_what_it_started_but_for_one_that_is_spared() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        stopped, spared = map(int, parent.stdout.readline().split())
        os.kill(stopped, signal.SIGSTOP)
        end_family(parent.pid, spare=spared)
        assert parent.wait() == -signal.SIGKILL
    assert (_runs(stopped), _runs(spared)) == (False, True)
    os.kill(spared, signal.SIGKILL)
    end_family(parent.pid)  # which is gone


def test_descent_is_those_that_led_here() -> None:
    assert os.getppid() in descent()
    assert os.getpid() not in descent()
