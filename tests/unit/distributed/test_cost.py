from __future__ import annotations

import pytest

from natdgp.distributed.cost import Network, ring_factor

NETWORK = Network(call=1.0, message=0.1, bandwidth=100.0)


def test_one_rank_sends_nothing() -> None:
    assert NETWORK.all_reduce(1000, 1) == 0
    assert NETWORK.reduce_scatter(1000, 1) == 0


def test_a_ring_of_four_sends_three_messages_of_a_quarter_each_way() -> None:
    assert NETWORK.reduce_scatter(400, 4) == pytest.approx(1 + 3 * (0.1 + 1))
    assert NETWORK.all_reduce(400, 4) == pytest.approx(1 + 6 * (0.1 + 1))


def test_an_all_reduce_takes_the_place_of_a_reduce_scatter_that_is_not_there() -> None:
    without = Network(call=1.0, message=0.1, bandwidth=100.0, scatters=False)
    assert without.reduce_scatter(400, 4) == without.all_reduce(400, 4)
    assert without.gather(400, 4) == NETWORK.reduce_scatter(400, 4)


@pytest.mark.parametrize(("ranks", "factor"), [(1, 0), (2, 1), (4, 1.5), (256, 1.9921875)])
def test_bytes_of_a_ring_near_twice_the_vector(ranks: int, factor: float) -> None:
    assert ring_factor(ranks) == factor
    free = Network(call=0, message=0, bandwidth=1)
    assert free.all_reduce(1000, ranks) == pytest.approx(1000 * factor)
