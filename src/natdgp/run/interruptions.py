"""What Ctrl-C, SIGTERM and a closed terminal do while something runs that wants to be saved."""

from __future__ import annotations

import signal
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handling(ask: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have the first of these signals inside ask for an end; the next does what it did before.

    Not so SIGHUP, of which a terminal that is closed may send several, at any time until the
    process has ended: from the first signal on it is ignored for good. Where it is ignored from
    the beginning, as after `nohup`, it asks for nothing.

    :param ask: is told the signal.
    """
    before = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]

    def hear(number: int, frame: types.FrameType | None) -> None:
        if signal.SIGHUP in before:
            before[signal.SIGHUP] = signal.SIG_IGN
        restore()
        ask(signal.Signals(number))

    def restore() -> None:
        for number in before:
            signal.signal(number, before[number])

    for number in before:
        signal.signal(number, hear)
    try:
        yield
    finally:
        restore()
