from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from natdgp.local.exchange import Exchange, Orders, Verdict


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


RANK = """
import sys, time
from pathlib import Path
from natdgp.local.exchange import Exchange
Exchange(Path(sys.argv[1])).end_with_the_command()
assert not {'tensorflow', 'determined'} & set(sys.modules)
print('here', flush=True)
time.sleep(60)
"""


def test_a_rank_ends_when_the_command_does(exchange: Exchange, tmp_path: Path) -> None:
    exchange.hold()
    with subprocess.Popen(
        [sys.executable, "-c", RANK, str(tmp_path)], stdout=subprocess.PIPE
    ) as rank:
        assert rank.stdout is not None
        assert rank.stdout.readline() == b"here\n"
        with pytest.raises(subprocess.TimeoutExpired):
            rank.wait(timeout=0.5)
        exchange.release()
        assert rank.wait(timeout=30) == 1
