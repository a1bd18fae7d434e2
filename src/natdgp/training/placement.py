"""Whether ranks repeat every natural-gradient step or share them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import gpflux

from natdgp.distributed.reducer import Reducer


def shards_steps(
    placement: Literal["replicated", "sharded"],
    layers: Sequence[gpflux.layers.GPLayer],
    reducer: Reducer,
) -> bool:
    """Whether ranks share natural-gradient steps out.

    :param placement: the setting.
    :param layers: those that natural gradients train.
    :param reducer: the ranks.
    """
    return reducer.size > 1 and bool(layers) and placement == "sharded"
