"""How latent GPs are shared out; that K ranks step as one is tested with real ranks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from natdgp.training.sharded_steps import Share, shares_of_ranks

SIZES = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 30)), min_size=1, max_size=6)


@given(sizes=SIZES, ranks=st.integers(1, 40))
def test_every_latent_gp_has_one_owner(sizes: list[tuple[int, int]], ranks: int) -> None:
    shares = shares_of_ranks(sizes, ranks)
    assert len(shares) == ranks
    owned = [
        (share.layer, latent)
        for of_rank in shares
        for share in of_rank
        for latent in range(share.start, share.stop)
    ]
    # In order: a layer is put together from the shares of one rank after the other.
    assert owned == [(layer, p) for layer, (_, P) in enumerate(sizes) for p in range(P)]


@given(sizes=SIZES, ranks=st.integers(1, 40))
def test_no_rank_has_more_than_its_part_and_one_latent_gp(
    sizes: list[tuple[int, int]], ranks: int
) -> None:
    part = sum(P * M**3 for M, P in sizes) / ranks
    largest = max(M**3 for M, _ in sizes)
    for of_rank in shares_of_ranks(sizes, ranks):
        work = sum((share.stop - share.start) * sizes[share.layer][0] ** 3 for share in of_rank)
        assert work <= part + largest


def test_equal_layers_are_shared_evenly() -> None:
    assert shares_of_ranks([(100, 4), (100, 4)], 4) == [
        [Share(0, 0, 2)],
        [Share(0, 2, 4)],
        [Share(1, 0, 2)],
        [Share(1, 2, 4)],
    ]


def test_ranks_beyond_the_latent_gps_have_nothing_to_do() -> None:
    assert sum(bool(of_rank) for of_rank in shares_of_ranks([(10, 2)], 5)) == 2
