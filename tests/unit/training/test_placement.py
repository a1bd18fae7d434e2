from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from natdgp.distributed.reducer import OneProcess
from natdgp.training.placement import shards_steps


def test_steps_are_shared_out_if_asked_for_and_there_is_something_to_share() -> None:
    layers: list[Any] = [object()]
    two: Any = SimpleNamespace(rank=0, size=2)
    assert shards_steps("sharded", layers, two)
    assert not shards_steps("replicated", layers, two)
    assert not shards_steps("sharded", layers, OneProcess())
    assert not shards_steps("sharded", [], two)
