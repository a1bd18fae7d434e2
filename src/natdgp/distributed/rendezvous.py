"""Where the ranks of a run on one machine meet: Horovod's rendezvous server, in this process.

Of Horovod only its runner is imported here, which needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
from collections.abc import Iterator

GLOO_TIMEOUT = 600
"""Seconds that a rank waits for one that is alive but busy; one that has died is seen at once, and
one that hangs by the watchdog. Horovod's own 30 are too few where ranks start on a loaded machine.
"""


def has_horovod() -> bool:
    """Whether Horovod is installed."""
    return importlib.util.find_spec("horovod") is not None


@contextlib.contextmanager
def rendezvous(ranks: int) -> Iterator[list[dict[str, str]]]:
    """Let K processes of this machine find each other over the loopback interface.

    :param ranks: K.
    :returns: for each rank the environment variables by which Horovod finds the others.
    """
    from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
    from horovod.runner.gloo_run import create_run_env_vars, create_slot_env_vars
    from horovod.runner.http.http_server import RendezvousServer

    plan = get_host_assignments([HostInfo("localhost", ranks)], ranks, ranks)
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    server = RendezvousServer()
    port = server.start()
    try:
        server.init(plan)
        shared = {
            "HOROVOD_GLOO_TIMEOUT_SECONDS": GLOO_TIMEOUT,
            "HOROVOD_LOG_LEVEL": os.environ.get("HOROVOD_LOG_LEVEL", "fatal"),  # we tell who failed
            **create_run_env_vars("127.0.0.1", loopback[:1], port),
        }
        yield [
            {name: str(value) for name, value in {**shared, **create_slot_env_vars(slot)}.items()}
            for slot in plan
        ]
    finally:
        server.stop()
        server._httpd.server_close()  # which it leaves to the garbage collector
