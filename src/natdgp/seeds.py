"""One seed, and keys made of it that have nothing in common."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import numpy.typing as npt


class Domain(enum.Enum):
    """What a key is for. Its value is the spawn key that tells NumPy's seed sequences apart."""

    SAMPLING_NOISE = ()
    DATA_ORDER = (1,)
    ENCODER = (2,)


def key_of(seed: int, domain: Domain, words: int, dtype: Any) -> npt.NDArray[Any]:
    """A key that depends on all bits of a seed, and on what it is for.

    :param seed: any non-negative integer.
    :param words: how many numbers.
    :param dtype: of the numbers, uint32 or uint64.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=domain.value)
    key: npt.NDArray[Any] = sequence.generate_state(words, dtype)
    return key
