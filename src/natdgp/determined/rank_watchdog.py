"""On a cluster, the ranks of a machine watch each other.

Horovod 0.28.1's stall inspector does nothing over Gloo (its controller there reserves the list of
ranks that are to be inspected, and leaves its length at 0), and a trial of which one rank hangs
would hold its slots for ever. Here it ends, and the log says which rank it was; the master restarts
it from its latest checkpoint, up to `max_restarts` times. `natdgp train` watches its own ranks.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import NoReturn

from determined import core

from natdgp.distributed.heartbeat import BEAT, Heartbeat, read_heartbeat
from natdgp.distributed.watchdog import VARIABLE, Stall, Watchdog, limit_from

logger = logging.getLogger("natdgp.determined")


PATIENCE = 10.0
"""Seconds for which the other ranks leave it to one to say why all end, and to end them."""


class RankWatchdog:
    """This rank's watch over those on its machine, itself included."""

    def __init__(self, distributed: core.DistributedContext, allocation: str) -> None:
        """:param allocation: names the task; its ranks on this machine meet in a folder.
        :raises ValueError: if the environment asks for no sensible limit.
        """
        self._limit = limit_from(os.environ.get(VARIABLE))
        self._file = open(  # noqa: SIM115 - for as long as this process lives
            Path(tempfile.gettempdir()) / f"natdgp-{allocation}",
            "r+b",
            buffering=0,
            opener=lambda path, flags: os.open(path, flags | os.O_CREAT, 0o600),
        )
        self._here, self._local_rank = distributed.local_size, distributed.local_rank
        self._size, self._first = distributed.size, distributed.rank - distributed.local_rank
        self.heartbeat = Heartbeat(self._file, self._local_rank)
        """What this rank shows."""

    def begin(self) -> None:
        """Watch for as long as this process lives."""
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        watchdog = Watchdog(self._limit, first=self._first)
        while True:
            time.sleep(BEAT)
            readings = [read_heartbeat(self._file, rank) for rank in range(self._here)]
            if (stall := watchdog.look(readings, time.monotonic())) is not None:
                self._end(stall)

    def _end(self, stall: Stall) -> NoReturn:
        ranks = range(self._first, self._first + self._here)
        speakers = [rank for rank in ranks if rank not in stall.ranks] or list(ranks)
        if speakers[0] == self._first + self._local_rank:
            logger.error(
                "Of %d ranks, %s; so all end. %s sets another limit in seconds.",
                self._size,
                stall,
                VARIABLE,
            )
        else:
            time.sleep(PATIENCE)  # or the speaker would fail by this rank's end before it spoke
        logging.shutdown()
        os._exit(1)
