"""What Ctrl-C and SIGTERM do while something runs that wants to be saved first."""

from __future__ import annotations

import signal
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def handling(handle: Callable[[int, types.FrameType | None], None]) -> Iterator[None]:
    """Have these signals handled inside, and as before afterwards."""
    before = {number: signal.signal(number, handle) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
