from __future__ import annotations

import os
import signal
import types

import pytest

from natdgp.run.interruptions import INTERRUPTIONS, handled_signals, handling

pytestmark = pytest.mark.usefixtures("hangup_heeded")


@pytest.mark.parametrize("number", INTERRUPTIONS)
def test_signals_are_handled_inside_and_as_before_afterwards(number: signal.Signals) -> None:
    received = []

    def note(number: int, frame: types.FrameType | None) -> None:
        received.append(number)
        raise ValueError("noted")

    before = signal.getsignal(number)
    with pytest.raises(ValueError, match="noted"), handling(note):
        os.kill(os.getpid(), number)
    assert received == [number]
    assert signal.getsignal(number) is before


def test_a_hangup_is_left_alone_where_it_is_ignored() -> None:
    assert signal.SIGHUP in handled_signals()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert handled_signals() == (signal.SIGINT, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
