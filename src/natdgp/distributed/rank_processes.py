"""The ranks of a run on one machine: processes that are started, watched and ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from natdgp.distributed.rank_channel import RankChannel
from natdgp.distributed.rendezvous import rendezvous
from natdgp.distributed.watchdog import Watchdog, after, steps_of

GRACE = 10.0
"""Seconds that the other ranks have to end when rank 0 has concluded the run."""

TAIL = 40
"""Lines that are shown of what a rank said that failed."""

CLEANER = """
while read -r rank; do ranks="$ranks -$rank"; done
kill -s KILL -- $ranks
rm -rf "$0" || { sleep 1; rm -rf "$0"; }
"""
"""A shell that is told the ranks, and ends them when its input ends, as it does with the command:
all that they have started too, stopped or not, and their folder for temporary files, in which
TensorFlow leaves hundreds where a process is killed."""


@dataclass(frozen=True)
class Rank:
    """One of the processes, and where it writes: rank 0 to the screen, the others aside."""

    process: subprocess.Popen[bytes]
    said: IO[bytes] | None

    def last_lines(self) -> list[str]:
        """Of what it has written aside."""
        if self.said is None:
            return []
        self.said.seek(max(self.said.seek(0, os.SEEK_END) - 65536, 0))
        return self.said.read().decode(errors="replace").splitlines()[-TAIL:]


@contextlib.contextmanager
def started(
    program: Sequence[str], ranks_in_all: int, environment: Mapping[str, str], inherited: list[int]
) -> Iterator[list[Rank]]:
    """Ranks, each in a session of its own: what a terminal sends reaches the command alone.

    On leaving, all have ended, and so has all that they started.

    :param program: what each runs.
    :param ranks_in_all: K.
    :param environment: variables for all of them, beside this process' own.
    :param inherited: numbers of open files that they have, too.
    """
    place, ranks = tempfile.mkdtemp(prefix="natdgp-"), list[Rank]()
    cleaner = subprocess.Popen(
        ["sh", "-c", CLEANER, place],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    fixed = {
        "TMPDIR": place,
        "PYTHONSAFEPATH": "1",  # what lies in the user's folder is no module of ours
        "PYTHONUNBUFFERED": "1",  # what a rank that is killed has said is there
    }
    with contextlib.ExitStack() as stack:
        stack.callback(_end, ranks)
        stack.enter_context(cleaner)
        assert cleaner.stdin is not None
        for own in stack.enter_context(rendezvous(ranks_in_all)):
            said = stack.enter_context(tempfile.TemporaryFile()) if ranks else None
            process = subprocess.Popen(
                program,
                env={**os.environ, **environment, **fixed, **own},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=None if said is None else subprocess.STDOUT,
                start_new_session=True,
                pass_fds=inherited,
            )
            ranks.append(Rank(process, said))
            cleaner.stdin.write(b"%d\n" % process.pid)
            cleaner.stdin.flush()
        yield ranks


def _end(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.process.kill()  # should the cleaner be gone
        rank.process.wait()


def watch(ranks: list[Rank], channel: RankChannel, limit: float) -> list[str] | None:
    """Wait until rank 0 has concluded the run and all have ended, but for GRACE seconds only.

    :param channel: of the ranks.
    :param limit: seconds for which a rank may be silent, or all may make no progress.
    :returns: what went wrong before that, in lines: a rank has failed, or keeps others waiting.
    """
    watchdog, deadline = Watchdog(limit), float("inf")
    while True:
        statuses = [rank.process.poll() for rank in ranks]
        if channel.status is not None:
            deadline = min(deadline, time.monotonic() + GRACE)
            if None not in statuses or time.monotonic() > deadline:
                return None
        elif failed := [rank for rank, status in enumerate(statuses) if status]:
            return _failure_report(ranks, failed[0], channel)
        elif statuses[0] is not None:
            return ["rank 0 ended before the run"]
        readings = [channel.reading(rank) for rank in range(len(ranks))]
        if channel.status is None and (stall := watchdog.look(readings, time.monotonic())):
            return [f"of {len(ranks)} ranks, {stall}"]
        time.sleep(0.1)


def _failure_report(ranks: list[Rank], failed: int, channel: RankChannel) -> list[str]:
    status = ranks[failed].process.returncode
    how = f"failed with exit status {status}"
    if status < 0:
        how = f"was ended by {signal.Signals(-status).name}"
    where = after(steps_of(channel.reading(failed)))
    return [f"rank {failed} of {len(ranks)} {how} {where}", *ranks[failed].last_lines()]
