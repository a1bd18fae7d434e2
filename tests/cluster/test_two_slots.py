"""The flights experiment on two slots: Determined's own launcher, horovodrun and two harnesses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.container import Task, run_trial
from tests.cluster.flights import short_flights
from tests.cluster.image import Image
from tests.cluster.master import StandInMaster
from tests.cluster.same import assert_same_trial
from tests.cluster.submission import sample

SAME = 1e-8
"""Relative: the order of summation over 20 steps in float64."""


def test_two_slots_train_what_one_does(
    image: Image,
    context: str,
    storage: Path,
    completed: tuple[StandInMaster, Task],
    tmp_path: Path,
) -> None:
    with StandInMaster(short_flights(storage, slots=2), context) as master:
        task = run_trial(image, master, tmp_path / "task")
    assert task.exit_code == 0, task.log
    assert not master.unknown
    assert not master.early_exits
    one_slot, _ = completed
    assert_same_trial(one_slot, master, storage, rtol=SAME)


@pytest.mark.slow  # on one slot in test_one_slot.py
def test_an_invalid_hyperparameter_ends_all_ranks_in_order(
    image: Image, context: str, storage: Path, tmp_path: Path
) -> None:
    """Inducing points that the rows do not suffice for are found out by rank 0 alone."""
    config = short_flights(storage, slots=2)
    hparams = sample(config["hyperparameters"])
    hparams["model"]["inducing_points"] = 5000
    with StandInMaster(config, context) as master:
        task = run_trial(image, master, tmp_path / "task", hparams=hparams)
    assert task.exit_code == 0, task.log
    assert set(master.early_exits) == {"EXITED_REASON_INVALID_HP"}  # each harness reports it
    assert "inducing_points is 5000" in task.log
    assert not master.reports
