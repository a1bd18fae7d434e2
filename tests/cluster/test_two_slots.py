"""The flights experiment on two slots: Determined's own launcher, horovodrun and two harnesses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.container import Task, run_trial
from tests.cluster.flights import short_flights
from tests.cluster.image import Image
from tests.cluster.master import StandInMaster, steps
from tests.cluster.submission import sample

SAME = 1e-8
"""Relative: the order of summation over 20 steps in float64."""


def _assert_same(ours: StandInMaster, run: int, theirs: StandInMaster, group: str) -> None:
    """Equal metrics after equal numbers of steps; one run may have begun later."""
    of_one_slot = {report.steps_completed: report for report in theirs.reported(group)}
    reports = ours.reported(group, run)
    assert reports
    for report in reports:
        expected = of_one_slot[report.steps_completed].metrics
        assert report.metrics == pytest.approx(expected, rel=SAME, abs=SAME)


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
    assert steps(master, "training") == [5, 10, 15, 20]
    assert steps(master, "validation") == [10, 20]
    assert not master.early_exits
    assert [c.metadata["steps_completed"] for c in master.checkpoints][-1] == 20
    one_slot, _ = completed
    _assert_same(master, 1, one_slot, "validation")
    _assert_same(master, 1, one_slot, "training")


def test_a_trial_paused_on_two_slots_ends_as_if_it_had_run_on_one(
    image: Image,
    context: str,
    storage: Path,
    completed: tuple[StandInMaster, Task],
    tmp_path: Path,
) -> None:
    config = short_flights(storage, slots=2)
    with StandInMaster(config, context, pause_at=0.25) as master:
        task = run_trial(image, master, tmp_path / "first")
        assert task.exit_code == 0, task.log
        assert steps(master, "training") == [5]
        assert master.acknowledgements == 1
        checkpoint = master.checkpoints[0]
        master.resume()
        task = run_trial(
            image,
            master,
            tmp_path / "second",
            run=2,
            latest_checkpoint=checkpoint.uuid,
            steps_completed=checkpoint.metadata["steps_completed"],
        )
    assert task.exit_code == 0, task.log
    assert steps(master, "training", run=2) == [10, 15, 20]
    _assert_same(master, 2, completed[0], "validation")


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
