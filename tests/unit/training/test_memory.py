from __future__ import annotations

import os
from typing import Any

import pytest

from natdgp.settings.schema import Settings
from natdgp.training.memory import too_large_a_batch


@pytest.fixture(autouse=True)
def _machine_of_1_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": 2**18}.__getitem__)


def _settings(rows: int, **model: Any) -> Settings:
    return Settings.read({"global_batch_size": rows, "model": model}, {"source": "flights"})


@pytest.mark.parametrize(
    ("rows", "model", "slots"),
    [
        (2**18, {"inducing_points": 256, "dtype": "float64"}, 1),
        (2**19, {"inducing_points": 256, "dtype": "float32"}, 1),
        (2**20, {"layers": 2, "inducing_points": [3, 256]}, 4),
    ],
)
def test_a_batch_is_refused_from_the_machines_memory_on(
    rows: int, model: dict[str, Any], slots: int
) -> None:
    assert too_large_a_batch(_settings(rows, **model), slots) is None
    told = too_large_a_batch(_settings(2 * rows, **model), slots)
    assert told is not None
    assert "at least 2 GiB, and this machine has 1: hyperparameters.global_batch_size is" in told
    assert "hyperparameters.model.inducing_points at most 256. Lower one of them" in told
