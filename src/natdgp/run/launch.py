"""A run on several slots of this machine: its ranks, started and watched by the command."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import tempfile
from functools import partial

from rich.console import Console

from natdgp.distributed.rank_channel import RankChannel
from natdgp.distributed.rank_processes import started, watch
from natdgp.distributed.rendezvous import has_horovod
from natdgp.run.devices import threads_for
from natdgp.run.exit_status import FAILED, SIGNALLED
from natdgp.run.interruptions import handling
from natdgp.run.rank import Orders
from natdgp.run.run_folder import RunFolder
from natdgp.run.run_session import alone, run_and_report, saved_so_far
from natdgp.settings import SettingsError


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
        program = [sys.executable, "-m", "natdgp.run.rank", json.dumps(dataclasses.asdict(orders))]
        shared = {} if gpus else threads_for(slots, os.environ)
        inherited = [file.fileno(), lock.fileno()]
        with (
            started(program, slots, shared, inherited) as ranks,
            handling(partial(_ask, channel)),
        ):
            failure = watch(ranks, channel, limit)
        if failure is not None:
            told = [f"natdgp train: {failure[0]}; so all end", *failure[1:]]
            sys.stderr.write("\n".join([*told, *saved_so_far(folder, slots), ""]))
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


def _ask(channel: RankChannel, number: signal.Signals) -> None:
    """Have rank 0 save and end the run; where it has nothing to save, end at once."""
    if channel.heeds:
        channel.ask_to_end(number)
    elif number is signal.SIGINT:
        raise KeyboardInterrupt
    else:
        sys.exit(SIGNALLED + number)
