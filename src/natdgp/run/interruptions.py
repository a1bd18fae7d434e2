"""What Ctrl-C, SIGTERM and a closed terminal do while something runs that wants to be saved."""

from __future__ import annotations

import signal
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def handled_signals() -> tuple[signal.Signals, ...]:
    """The signals to handle: not SIGHUP where it is ignored, as after `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return tuple(one for one in INTERRUPTIONS if not (one is signal.SIGHUP and ignored))


@contextmanager
def handling(handle: Callable[[int, types.FrameType | None], None]) -> Iterator[None]:
    """Have these signals handled inside, and as before afterwards."""
    before = {number: signal.signal(number, handle) for number in handled_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
