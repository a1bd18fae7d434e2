"""What every slot of a run is started with: `python -m natdgp.run.rank ORDERS`."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from natdgp.distributed.rank_channel import RankChannel
from natdgp.run.exit_status import MISUSED, REFUSED
from natdgp.run.logging_setup import silence_the_stack
from natdgp.run.screen import lasting_screen

PATIENCE = 20.0
"""Seconds for which a rank that lost another leaves it to that one, or to rank 0, to say why."""


@dataclass(frozen=True)
class Orders:
    """What a rank has to know."""

    channel: int  # the number of the channel's open file, which ranks inherit
    folder: str  # the run's
    command: list[str]  # the user's, for the manifest
    live: bool  # redraw the progress line, on a terminal
    width: int | None  # of the screen, where it is no terminal
    of_search: bool  # the run is a trial of a search, which judges it


def main(orders: Orders) -> int:
    """Train as one of several ranks; returns the exit status, 0 unless this rank failed."""
    rank, ranks = int(os.environ["HOROVOD_RANK"]), int(os.environ["HOROVOD_SIZE"])
    channel = RankChannel(os.fdopen(orders.channel, "r+b", buffering=0), ranks)
    channel.show(rank)
    silence_the_stack()
    sys.argv = orders.command
    try:
        status = train(orders, channel, leads=rank == 0)
    except Exception as error:
        from natdgp.distributed.horovod_reducer import lost_another_rank

        if lost_another_rank(error) and _concluded(channel):
            return 0
        raise
    if rank == 0:
        channel.conclude(status)
    return 0 if channel.status is not None else status


def train(orders: Orders, channel: RankChannel, *, leads: bool) -> int:
    """Train with the other ranks; what is wrong with the request is told by rank 0 alone.

    :param leads: whether this is rank 0, which writes to the run's folder and reports.
    :returns: the exit status for the command.
    """
    from rich.console import Console

    from natdgp.checkpoint.checksums import DamagedCheckpoint
    from natdgp.data.table import DataError
    from natdgp.run.local_training import follow
    from natdgp.run.run_folder import FolderError, RunFolder
    from natdgp.run.run_session import train_and_report
    from natdgp.settings.experiment import read_experiment
    from natdgp.training.diagnosis import BadBatch, TrainingFailure

    try:
        folder = RunFolder.open(Path(orders.folder))
        if not leads:
            follow(read_experiment(folder.config), folder, channel)
            return 0
        return train_and_report(
            Console(width=orders.width, highlight=False, markup=False, emoji=False),
            folder,
            live=orders.live,
            channel=channel,
            of_search=orders.of_search,
        )
    except (FolderError, DataError, BadBatch, DamagedCheckpoint, TrainingFailure) as error:
        status, command = (REFUSED, "") if orders.of_search else (MISUSED, "natdgp train: ")
        if leads or not _concluded(channel):  # else rank 0 tells it for all
            sys.stderr.write(f"{command}{error}\n")
        return status


def _concluded(channel: RankChannel) -> bool:
    """Wait for rank 0 to conclude the run, or for the command to end this process."""
    deadline = time.monotonic() + PATIENCE
    while channel.status is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return channel.status is not None


if __name__ == "__main__":
    with lasting_screen():
        sys.exit(main(Orders(**json.loads(sys.argv[1]))))
