"""What horovodrun passes on from its ranks, taken apart again."""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_PIECE = re.compile(r"\[(\d+)\]<(stdout|stderr)>:(.*)", re.DOTALL)
_ENDED = re.compile(r"Process (\d+) exit with status code (\d+)\.")


@dataclass(frozen=True)
class Ended:
    """A rank that ended with another exit status than 0."""

    rank: int
    status: int


class Output:
    """Passes rank 0's output on and remembers the last lines of all others.

    horovodrun cuts what ranks write at every end of a line and every carriage return, and puts
    `[rank]<stdout>:` or `[rank]<stderr>:` in front of each piece.
    """

    TAIL = 20
    """Lines remembered of each rank's standard error, and of horovodrun."""

    def __init__(self, show: Callable[[str], object], show_error: Callable[[str], object]) -> None:
        """:param show: is given what rank 0 writes to standard output.
        :param show_error: is given what rank 0 writes to standard error.
        """
        self._show = {"stdout": show, "stderr": show_error}
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._tails: dict[int | None, deque[str]] = {}
        self.first_to_fail: Ended | None = None

    def feed(self, read: bytes) -> None:
        """Take what was read; nothing, at the end."""
        *pieces, self._rest = re.split(
            r"(?<=[\r\n])", self._rest + self._decoder.decode(read, final=not read)
        )
        if not read and self._rest:
            pieces.append(self._rest)
        for piece in pieces:
            self._take(piece)

    def tail(self, rank: int | None) -> list[str]:
        """The last lines of a rank, or of horovodrun itself (None)."""
        return list(self._tails.get(rank, ()))

    def _take(self, piece: str) -> None:
        if found := _PIECE.fullmatch(piece):
            rank, stream, text = int(found[1]), found[2], found[3]
            if rank == 0:
                self._show[stream](text)
            if rank != 0 or stream == "stderr":
                self._remember(rank, text)
            return
        if (ended := _ENDED.match(piece)) and self.first_to_fail is None:
            self.first_to_fail = Ended(int(ended[1]), int(ended[2]))
        self._remember(None, piece)

    def _remember(self, rank: int | None, text: str) -> None:
        if text.strip():
            self._tails.setdefault(rank, deque(maxlen=self.TAIL)).append(text.rstrip())
