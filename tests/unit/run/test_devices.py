from __future__ import annotations

import os

import pytest

from natdgp.run.devices import THREADS, VISIBLE, choose_slots, shares_of, threads_for
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


@pytest.mark.parametrize(
    ("asked", "configured", "gpus", "slots"),
    [
        (None, 1, 0, 1),
        (None, 1, 8, 1),
        (None, 2, 2, 2),
        (None, 2, 8, 2),
        (1, 8, 0, 1),
        (2, 1, 0, 2),
        (2, 1, 2, 2),
        (1, 2, 1, 1),
    ],
)
def test_slots_that_need_no_remark(
    asked: int | None, configured: int, gpus: int, slots: int
) -> None:
    assert choose_slots(asked, configured, gpus) == (slots, None)


@pytest.mark.parametrize(
    ("gpus", "machine"), [(0, "has no GPU"), (1, "has 1 GPU:"), (3, "has 3 GPUs:")]
)
def test_too_few_gpus_for_the_files_slots_are_told_in_a_line(gpus: int, machine: str) -> None:
    slots, remark = choose_slots(None, 4, gpus)
    assert slots == 1
    assert remark is not None
    assert machine in remark
    assert "--slots 4" in remark
    assert "\n" not in remark


def test_slots_without_a_gpu_among_slots_with_one_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"--slots: received 4; .* GPUs, 2, as each slot"):
        choose_slots(4, 1, 2)


@pytest.mark.parametrize(
    ("cores", "slots", "share"), [(8, 2, "4"), (8, 3, "2"), (2, 2, "1"), (2, 4, "1")]
)
def test_ranks_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, slots: int, share: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert threads_for(slots, {}) == dict.fromkeys(THREADS, share)


def test_threads_that_the_user_has_set_stay() -> None:
    assert "OMP_NUM_THREADS" not in threads_for(2, {"OMP_NUM_THREADS": "7"})
    assert len(threads_for(2, {"OMP_NUM_THREADS": "7"})) == 2
