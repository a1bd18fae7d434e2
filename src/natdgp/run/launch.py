"""A run on several slots of this machine: its ranks, started and watched by the command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO

from rich.console import Console

from natdgp.distributed.rendezvous import has_horovod, rendezvous
from natdgp.distributed.watchdog import Watchdog, after, steps_of
from natdgp.run.devices import threads_for
from natdgp.run.exit_status import FAILED, SIGNALLED
from natdgp.run.interruptions import handling
from natdgp.run.process_lock import ProcessLock
from natdgp.run.rank import Orders
from natdgp.run.rank_channel import RankChannel
from natdgp.run.run_folder import RunFolder
from natdgp.run.run_session import alone, run_and_report, saved_so_far
from natdgp.settings import SettingsError

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


def run_on_slots(
    console: Console,
    folder: RunFolder,
    slots: int,
    *,
    live: bool,
    gpus: bool,
    limit: float,
    of_search: bool = False,
) -> int:
    """Train from the folder's latest checkpoint, or from the start; one slot is this process.

    The first SIGINT or SIGTERM asks several to save and end, a second one ends them at once.

    :param console: the screen.
    :param folder: of the run.
    :param slots: how many processes.
    :param live: redraw the progress line if the console is a terminal.
    :param gpus: whether each rank has a GPU; otherwise the ranks share the cores.
    :param limit: seconds for which a rank may be silent, or all may make no progress.
    :param of_search: whether the run is a trial of a search, which judges it.
    :returns: the exit status.
    :raises FolderError: if another command trains there.
    :raises KeyboardInterrupt: after a signal that left nothing to be saved.
    """
    if slots == 1:
        return run_and_report(console, folder, live=live, of_search=of_search)
    with alone(console, folder, slots) as lock, tempfile.TemporaryFile(buffering=0) as file:
        channel = RankChannel(file, slots)
        orders = Orders(
            channel=file.fileno(),
            folder=str(folder.root),
            command=sys.argv,
            live=live,
            width=None if console.is_terminal else console.width,
            of_search=of_search,
        )
        shared = {} if gpus else threads_for(slots, os.environ)
        with _started(orders, slots, shared, lock) as ranks, handling(partial(_ask, channel)):
            failure = _watch(ranks, channel, limit)
        if failure is not None:
            sys.stderr.write("\n".join([*failure, *saved_so_far(folder, slots), ""]))
        return FAILED if failure is not None or channel.status is None else channel.status


def require_horovod(slots: int) -> None:
    """:raises SettingsError: if several slots need Horovod, which is not installed."""
    if slots > 1 and not has_horovod():
        raise SettingsError.single(
            "--slots",
            slots,
            f"needs Horovod, which is not installed for {sys.executable}",
            "build it with scripts/build-horovod (make setup does), or use --slots 1",
        )


@contextlib.contextmanager
def _started(
    orders: Orders, slots: int, shared: dict[str, str], lock: ProcessLock
) -> Iterator[list[Rank]]:
    """Ranks, each in a session of its own: what a terminal sends reaches the command alone."""
    program = [sys.executable, "-m", "natdgp.run.rank", json.dumps(dataclasses.asdict(orders))]
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
        for environment in stack.enter_context(rendezvous(slots)):
            said = stack.enter_context(tempfile.TemporaryFile()) if ranks else None
            process = subprocess.Popen(
                program,
                env={**os.environ, **shared, **fixed, **environment},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=None if said is None else subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[orders.channel, lock.fileno()],
            )
            ranks.append(Rank(process, said))
            cleaner.stdin.write(b"%d\n" % process.pid)
            cleaner.stdin.flush()
        yield ranks


def _end(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.process.kill()  # should the cleaner be gone
        rank.process.wait()


def _ask(channel: RankChannel, number: signal.Signals) -> None:
    """Have rank 0 save and end the run; where it has nothing to save, end at once."""
    if channel.heeds:
        channel.ask_to_end(number)
    elif number is signal.SIGINT:
        raise KeyboardInterrupt
    else:
        sys.exit(SIGNALLED + number)


def _watch(ranks: list[Rank], channel: RankChannel, limit: float) -> list[str] | None:
    """Wait until rank 0 has concluded the run and all have ended, but for GRACE seconds only.

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
            return ["natdgp train: rank 0 ended before the run; so all end"]
        readings = [channel.reading(rank) for rank in range(len(ranks))]
        if channel.status is None and (stall := watchdog.look(readings, time.monotonic())):
            return [f"natdgp train: of {len(ranks)} ranks, {stall}; so all end"]
        time.sleep(0.1)


def _failure_report(ranks: list[Rank], failed: int, channel: RankChannel) -> list[str]:
    status = ranks[failed].process.returncode
    how = f"failed with exit status {status}"
    if status < 0:
        how = f"was ended by {signal.Signals(-status).name}"
    where = after(steps_of(channel.reading(failed)))
    line = f"natdgp train: rank {failed} of {len(ranks)} {how} {where}; so all end"
    return [line, *ranks[failed].last_lines()]
