"""A run on several slots of this machine: its ranks under horovodrun, seen from the command."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from rich.console import Console

from natdgp.distributed.watchdog import Stall, Vigil, after, steps_of
from natdgp.run.exchange import Exchange, Orders
from natdgp.run.exit_status import FAILED
from natdgp.run.interruptions import handling
from natdgp.run.manifest import close_lost_session
from natdgp.run.output import Ended, Output
from natdgp.run.process_tree import end_family
from natdgp.run.run_folder import RunFolder
from natdgp.run.run_session import alone, way_on
from natdgp.run.slots import threads_for
from natdgp.settings import SettingsError

GRACE = 10.0
"""Seconds that the other ranks have to end after rank 0's verdict."""

GLOO_TIMEOUT = 600
"""Seconds that a rank waits for one that is alive but busy; one that has died is seen at once, and
one that hangs by the vigil. Horovod's own 30 are too few where ranks start on a loaded machine."""

LONGEST_PLACE = 107 - len("/natdgp-12345678/ipc12345678/pull.sock")
"""Of the folder for temporary files: the path of a socket, such as Determined's, has 107 bytes."""


class RequestRefused(ValueError):
    """What rank 0 found wrong with the data or the folder."""


def find_horovodrun(slots: int) -> Path:
    """The launcher that belongs to this Python.

    :raises SettingsError: if Horovod is not installed.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which("horovodrun", path=beside) or shutil.which("horovodrun")
    if found is None:
        raise SettingsError.single(
            "--slots",
            slots,
            f"needs Horovod, and there is no horovodrun in {beside} or on the path",
            "build it with scripts/build-horovod (make setup does), or use --slots 1",
        )
    return Path(found)


def run_on_slots(
    console: Console,
    folder: RunFolder,
    slots: int,
    horovodrun: Path,
    *,
    live: bool,
    gpus: bool,
    limit: float,
    of_search: bool = False,
) -> int:
    """Train in several processes from the folder's latest checkpoint, or from the start.

    The first SIGINT or SIGTERM asks the ranks to save and end, a second one ends them at once.

    :param console: the screen.
    :param folder: of the run.
    :param slots: how many processes.
    :param horovodrun: the launcher.
    :param live: redraw the progress line if the console is a terminal.
    :param gpus: whether each rank has a GPU; otherwise the ranks share the cores.
    :param limit: seconds for which a rank may be silent, or all may make no progress.
    :param of_search: whether the run is a trial of a search, which judges it.
    :returns: the exit status.
    :raises RequestRefused: if something is wrong with the data or the folder.
    :raises FolderError: if another command trains there.
    :raises KeyboardInterrupt: after a signal that left nothing to be saved.
    """
    orders = Orders(
        folder=str(folder.root),
        command=sys.argv,
        live=live,
        terminal=console.is_terminal,
        width=console.width,
        of_search=of_search,
    )
    began = time.monotonic()
    output = Output(_writer(sys.stdout), _writer(sys.stderr))
    with alone(console, folder, slots), _exchange(orders) as exchange:
        command = _command(horovodrun, slots, exchange)
        environment = _environment(slots, exchange, gpus)
        with _launched(command, environment) as launcher, handling(_asking(exchange)):
            stall = _watch(launcher, output, exchange, slots, limit)
        if exchange.verdict is None:
            report = _failure_report(stall or output.first_to_fail, output, exchange, slots)
            _writer(sys.stderr)("\n".join([*report, *_remedy(folder, slots), ""]))
            close_lost_session(folder.manifest, seconds=time.monotonic() - began)
            return FAILED
        if exchange.verdict.refused is not None:
            raise RequestRefused(exchange.verdict.refused)
        return exchange.verdict.status


def _command(horovodrun: Path, slots: int, exchange: Exchange) -> list[str]:
    launcher = [str(horovodrun), "-np", str(slots), "--gloo", "--disable-cache"]
    timeout = ["--gloo-timeout-seconds", str(GLOO_TIMEOUT)]
    return [*launcher, *timeout, sys.executable, "-m", "natdgp.run.rank", str(exchange.root)]


def _environment(slots: int, exchange: Exchange, gpus: bool) -> dict[str, str]:
    publish, pull = free_ports(2)
    return {
        **os.environ,
        **({} if gpus else threads_for(slots, os.environ)),
        "USE_HOROVOD": "1",  # as Determined's launcher tells its controller
        "INTER_TRAIN_PROCESS_COMM_PORT_1": str(publish),
        "INTER_TRAIN_PROCESS_COMM_PORT_2": str(pull),
        "PYTHONSAFEPATH": "1",  # what lies in the user's folder is no module of ours
        "HOROVOD_LOG_LEVEL": os.environ.get("HOROVOD_LOG_LEVEL", "fatal"),  # we tell who failed
        "TMPDIR": str(exchange.root),  # sockets of ranks that are killed go when it goes
    }


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextlib.contextmanager
def _exchange(orders: Orders) -> Iterator[Exchange]:
    place = tempfile.gettempdir()
    if len(place) > LONGEST_PLACE:
        place = "/tmp"
    with tempfile.TemporaryDirectory(
        prefix="natdgp-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        exchange = Exchange(Path(folder))
        exchange.give(orders)
        lifeline = exchange.lifeline
        lifeline.hold()
        try:
            yield exchange
        finally:
            lifeline.release()


@contextlib.contextmanager
def _launched(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """In a session of its own: what a terminal sends reaches the command alone."""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as launcher:
        try:
            yield launcher
        finally:
            end_family(launcher.pid)


def _asking(exchange: Exchange) -> Callable[[int, types.FrameType | None], None]:
    def ask(number: int, frame: types.FrameType | None) -> None:
        if exchange.asked is None and exchange.heeds:
            exchange.ask_to_end(signal.Signals(number))
        elif number == signal.SIGHUP and exchange.asked is not None:
            return  # of which a terminal that is closed may send several
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            sys.exit(128 + number)

    return ask


def _watch(
    launcher: subprocess.Popen[bytes], output: Output, exchange: Exchange, slots: int, limit: float
) -> Stall | None:
    """Pass output on until all ranks have ended, one has failed or stalls, or time is up."""
    assert launcher.stdout is not None
    exchange.launched(launcher.pid)
    vigil = Vigil(limit)
    deadline = float("inf")
    read = b"something"
    while read and output.first_to_fail is None and time.monotonic() < deadline:
        if select.select([launcher.stdout], [], [], 0.2)[0]:
            read = os.read(launcher.stdout.fileno(), 65536)
            output.feed(read)
        elif deadline == float("inf") and exchange.verdict is not None:
            deadline = time.monotonic() + GRACE
        readings = [exchange.reading(rank) for rank in range(slots)]
        if exchange.verdict is None and (stall := vigil.look(readings, time.monotonic())):
            return stall
    return None


def _failure_report(
    failed: Stall | Ended | None, output: Output, exchange: Exchange, slots: int
) -> list[str]:
    if failed is None:
        return ["natdgp train: the ranks ended without a word", *output.tail(None)]
    if isinstance(failed, Stall):
        return [f"natdgp train: of {slots} ranks, {failed}; so all end"]
    where = after(steps_of(exchange.reading(failed.rank)))
    line = f"natdgp train: rank {failed.rank} of {slots} {_how(failed.status)} {where}; so all end"
    why = exchange.failure(failed.rank)
    said = output.tail(failed.rank) if failed.rank else []  # rank 0's is on the screen
    return [line, *(why.splitlines() if why else said)]


def _how(status: int) -> str:
    if status > 128 and status - 128 in set(signal.Signals):
        return f"was ended by {signal.Signals(status - 128).name}"
    return f"failed with exit status {status}"


def _remedy(folder: RunFolder, slots: int) -> list[str]:
    checkpoints = folder.checkpoints()
    if not checkpoints:
        return []
    return [f"Saved up to step {checkpoints[-1].steps}. Go on with:", f"  {way_on(folder, slots)}"]


def _writer(stream: TextIO) -> Callable[[str], None]:
    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    return write
