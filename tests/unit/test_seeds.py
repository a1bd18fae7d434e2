from __future__ import annotations

import numpy as np

from natdgp.seeds import Domain, key_of


def test_keys_of_a_seed_differ_by_what_they_are_for() -> None:
    keys = np.concatenate([key_of(5, domain, 2, np.uint32) for domain in Domain])
    assert len(np.unique(keys)) == 2 * len(Domain)
