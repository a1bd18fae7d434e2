from __future__ import annotations

import numpy as np

from natdgp.seeds import Domain, key_of


def test_keys_of_a_seed_differ_by_what_they_are_for() -> None:
    noise, order = (key_of(5, domain, 2, np.uint32) for domain in Domain)
    assert not set(noise) & set(order)


def test_keys_depend_on_all_bits_of_a_seed() -> None:
    keys = {tuple(key_of(seed, Domain.DATA_ORDER, 2, np.uint32)) for seed in (1, 1 + 2**64, 2**200)}
    assert len(keys) == 3
