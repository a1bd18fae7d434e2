from __future__ import annotations

import signal

import pytest

from natdgp.run.interruptions import INTERRUPTIONS, handling

pytestmark = pytest.mark.usefixtures("hangup_heeded")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_does_what_it_did_before(
    number: signal.Signals,
) -> None:
    asked: list[signal.Signals] = []
    received: list[int] = []
    before = signal.signal(number, lambda number, frame: received.append(number))
    own = signal.getsignal(number)
    try:
        signal.raise_signal(number)  # before the start, a signal is none of its business
        with handling(asked.append):
            signal.raise_signal(number)
            assert (asked, received) == ([number], [number])
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGHUP)  # of a terminal that is closed as well
            assert (asked, received) == ([number], [number, number])
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


def test_a_closed_terminal_asks_once_and_is_ignored_for_good() -> None:
    """It may send several SIGHUP, the last of them when what ran has been saved."""
    asked: list[signal.Signals] = []
    with handling(asked.append):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGHUP)
    assert asked == [signal.SIGHUP]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_what_nothing_asked_to_end_leaves_all_signals_as_they_were() -> None:
    before = [signal.getsignal(number) for number in INTERRUPTIONS]
    with pytest.raises(ZeroDivisionError), handling(print):
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in INTERRUPTIONS] == before


def test_a_hangup_is_left_alone_where_it_is_ignored() -> None:
    asked: list[signal.Signals] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with handling(asked.append):
        signal.raise_signal(signal.SIGHUP)
    assert asked == []
