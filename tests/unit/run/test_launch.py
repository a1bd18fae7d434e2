from __future__ import annotations

import signal
from functools import partial

import pytest

from natdgp.distributed.rank_channel import RankChannel
from natdgp.run import launch
from natdgp.run.interruptions import handling


@pytest.mark.usefixtures("hangup_heeded")
def test_a_signal_asks_rank_0_where_it_has_something_to_save(
    channel: RankChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RankChannel, "heeds", True)
    with handling(partial(launch._ask, channel)):
        signal.raise_signal(signal.SIGTERM)
    assert channel.asked is signal.SIGTERM


@pytest.mark.usefixtures("hangup_heeded")
@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGHUP, SystemExit)]
)
def test_a_signal_before_there_is_anything_to_save_ends(
    channel: RankChannel, number: signal.Signals, end: type[BaseException]
) -> None:
    with pytest.raises(end), handling(partial(launch._ask, channel)):
        signal.raise_signal(number)
    assert channel.asked is None
