"""What horovodrun starts on every slot: `python -m natdgp.run.rank EXCHANGE`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from pathlib import Path

from natdgp.run.exchange import Exchange, Orders, Verdict
from natdgp.run.logging_setup import quiet_the_stack
from natdgp.run.process_lock import LOCK, Lifeline

PATIENCE = 20.0
"""Seconds for which a rank that lost another leaves it to that one, or to rank 0, to say why."""


def main(exchange: Exchange) -> int:
    """Train as one of several ranks; returns the exit status, 0 unless this rank failed."""
    exchange.lifeline.watch(before_end=exchange.clear_away)
    folder = Lifeline(Path(exchange.orders.folder) / LOCK)
    folder.join()  # no other command gets it before this rank has ended
    rank = int(os.environ["HOROVOD_RANK"])
    exchange.live(rank)
    quiet_the_stack()
    try:
        if rank == 0:
            exchange.conclude(_lead(exchange, exchange.orders))
        else:
            _follow(exchange, exchange.orders)
    except Exception as error:
        if _follows_from_another(error) and _explained(exchange):
            return 0
        exchange.fail(rank, traceback.format_exc())
        return 1
    return 0


def _lead(exchange: Exchange, orders: Orders) -> Verdict:
    from rich.console import Console

    from natdgp.checkpoint.checksums import DamagedCheckpoint
    from natdgp.data.table import DataError
    from natdgp.run.run_folder import FolderError, RunFolder
    from natdgp.run.run_session import train_and_report

    sys.argv = orders.command  # the manifest tells what the user asked for
    console = Console(
        force_terminal=orders.terminal,
        width=orders.width,
        highlight=False,
        markup=False,
        emoji=False,
    )
    try:
        folder = RunFolder.open(Path(orders.folder))
        status = train_and_report(
            console, folder, live=orders.live, exchange=exchange, of_search=orders.of_search
        )
        return Verdict(status)
    except (FolderError, DataError, DamagedCheckpoint) as error:
        return Verdict(refused=str(error))


def _follow(exchange: Exchange, orders: Orders) -> None:
    import determined as det

    from natdgp.checkpoint.checksums import DamagedCheckpoint
    from natdgp.data.table import DataError
    from natdgp.run.local_training import follow
    from natdgp.run.run_folder import FolderError, RunFolder
    from natdgp.settings import read_experiment

    folder = RunFolder.open(Path(orders.folder))
    # the same on every rank; rank 0 tells it
    with contextlib.suppress(det.InvalidHP, DataError, FolderError, DamagedCheckpoint):
        follow(read_experiment(folder.config), folder, exchange)


def _follows_from_another(error: Exception) -> bool:
    """Whether a collective failed, as it does when another rank has ended.

    Horovod's operations in TensorFlow then raise its UnknownError, as the status of a shut-down and
    of a broken connection is unknown (`ConvertStatus` in Horovod 0.28.1).
    """
    import tensorflow as tf
    from horovod.common.exceptions import HorovodInternalError

    return isinstance(error, (HorovodInternalError, tf.errors.UnknownError))


def _explained(exchange: Exchange) -> bool:
    """Wait for rank 0's verdict, or for the command to end this process."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if exchange.verdict is not None:
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    sys.exit(main(Exchange(Path(sys.argv[1]))))
