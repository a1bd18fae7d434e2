"""Standard output and error that may go away: a pipe without a reader, a closed terminal."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Screen:
    """A stream of text that outlasts its reader.

    A write that fails asks this process to end, so that what runs is saved first; from then on
    what is written goes nowhere. It asks by SIGHUP, which a closed terminal sends as well, and of
    which a second one does no harm. Characters that the stream's encoding lacks are written as
    escapes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # also for what is still buffered
        os.close(nowhere)
        signal.raise_signal(signal.SIGHUP)


@contextmanager
def lasting_screen() -> Iterator[None]:
    """Have standard output and error outlast their readers."""
    out, error = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Screen(out), Screen(error)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, error
