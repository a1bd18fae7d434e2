from __future__ import annotations

import os

import pytest

from natdgp.run.devices import VISIBLE, shares_of
from natdgp.settings import SettingsError


def test_without_gpus_runs_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert {share["OMP_NUM_THREADS"] for share in shares_of(2, 2, 0, {})} == {"2"}
    assert shares_of(1, 1, 0, {}) == [{}], "one alone is as by natdgp train"


@pytest.mark.parametrize(
    ("jobs", "slots", "environment", "visible"),
    [
        (2, 1, {}, ["0", "1"]),
        (2, 2, {}, ["0,1", "2,3"]),
        (2, 1, {VISIBLE: "5,7,8,9"}, ["5", "7"]),
    ],
)
def test_every_slot_of_every_run_has_a_gpu(
    jobs: int, slots: int, environment: dict[str, str], visible: list[str]
) -> None:
    assert [share[VISIBLE] for share in shares_of(jobs, slots, 4, environment)] == visible


def test_too_few_gpus_are_told() -> None:
    with pytest.raises(SettingsError, match=r"would need 6 GPUs of 4\n    use --jobs 2"):
        shares_of(3, 2, 4, {})
