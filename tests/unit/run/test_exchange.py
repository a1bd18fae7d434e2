from __future__ import annotations

import signal
from pathlib import Path

import pytest

from natdgp.run.exchange import Exchange, Orders, Verdict


@pytest.fixture
def exchange(tmp_path: Path) -> Exchange:
    return Exchange(tmp_path)


def test_nothing_is_said_at_first(exchange: Exchange) -> None:
    assert (exchange.asked, exchange.verdict, exchange.failure(0)) == (None, None, None)
    assert not exchange.heeds


def test_what_one_side_says_the_other_side_reads(exchange: Exchange, tmp_path: Path) -> None:
    other = Exchange(tmp_path)
    orders = Orders("/runs/a", ["natdgp", "train"], live=True, terminal=False, width=80)
    exchange.give(orders)
    assert other.orders == orders
    exchange.ask_to_end(signal.SIGTERM)
    assert other.asked is signal.SIGTERM
    other.heed(True)
    assert exchange.heeds
    other.heed(False)
    assert not exchange.heeds
    other.fail(1, "Traceback\nwäve")
    assert (exchange.failure(1), exchange.failure(0)) == ("Traceback\nwäve", None)
    other.conclude(Verdict(refused="no such file"))
    assert exchange.verdict == Verdict(0, "no such file")
