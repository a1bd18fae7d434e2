"""A rank that keeps the others waiting ends the task, which its master then restarts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from natdgp.distributed.watchdog import VARIABLE
from tests.cluster.container import Task, run_trial
from tests.cluster.flights import short_flights
from tests.cluster.image import Image
from tests.cluster.master import StandInMaster
from tests.cluster.same import assert_same_trial
from tests.cluster.submission import pack
from tests.conftest import REPOSITORY
from tests.integration.breaking import HANGS, STOPS, breaking_trial

LIMIT = 15
"""Seconds: longer than a busy machine takes to trace the first validation."""

SAME = 1e-8
"""Relative: the order of summation over ranks."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "told"), [(HANGS, "made no progress"), (STOPS, "gave no sign of life")]
)
def test_the_log_names_the_rank_and_a_restart_goes_on(
    image: Image,
    storage: Path,
    completed: tuple[StandInMaster, Task],
    tmp_path: Path,
    how: str,
    told: str,
) -> None:
    config = short_flights(storage, slots=2)
    breaks = pack(REPOSITORY, {"mine.py": breaking_trial(how)})
    mine = config["entrypoint"].replace("trials.deep_gp:DeepGPTrial", "mine:Mine")
    with StandInMaster({**config, "entrypoint": mine}, breaks) as master:
        task = run_trial(image, master, tmp_path / "1", variables={VARIABLE: str(LIMIT)})
        assert task.exit_code != 0, task.log
        where = re.findall(f"Of 2 ranks, rank 1 {told} for {LIMIT} s after step (\\d+)", task.log)
        assert where in (["6"], ["7"]), task.log
        assert master.checkpoints[-1].metadata["steps_completed"] == 6
        task = run_trial(image, master, tmp_path / "2")
        assert task.exit_code == 0, task.log
    assert_same_trial(completed[0], master, storage, rtol=SAME)
