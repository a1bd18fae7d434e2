"""The flights experiment on one slot: Determined's own steps, launcher and harness."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests.cluster.container import Task, run_trial
from tests.cluster.flights import short_flights
from tests.cluster.image import VENDOR_BUILD, Image
from tests.cluster.master import Checkpoint, StandInMaster, steps
from tests.cluster.submission import sample

IMAGES_OWN = ("numpy", "horovod", "keras", "protobuf", "h5py", "determined")


@pytest.fixture(scope="module")
def paused(
    image: Image, context: str, storage: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[StandInMaster, Task]]:
    """The same trial, told to pause after a quarter of its length."""
    with StandInMaster(short_flights(storage), context, pause_at=0.25) as master:
        yield master, run_trial(image, master, tmp_path_factory.mktemp("paused") / "task")


@pytest.fixture(scope="module")
def resumed(
    image: Image,
    paused: tuple[StandInMaster, Task],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[StandInMaster, Task]:
    """The paused trial's second run, from its checkpoint."""
    master, _ = paused
    master.resume()
    checkpoint = master.checkpoints[0]
    task = run_trial(
        image,
        master,
        tmp_path_factory.mktemp("resumed") / "task",
        run=2,
        latest_checkpoint=checkpoint.uuid,
        steps_completed=checkpoint.metadata["steps_completed"],
    )
    return master, task


def assert_whole(checkpoint: Checkpoint, storage: Path) -> None:
    assert checkpoint.state == "STATE_COMPLETED"
    folder = storage / checkpoint.uuid
    missing = [name for name in checkpoint.resources if not (folder / name).exists()]
    assert not missing
    assert (folder / "determined-keras-model-weights.index").is_file()


def test_a_trial_runs_to_its_end(completed: tuple[StandInMaster, Task], storage: Path) -> None:
    master, task = completed
    assert task.exit_code == 0, task.log
    assert not master.unknown
    assert steps(master, "training") == [5, 10, 15, 20]
    assert steps(master, "validation") == [10, 20]
    assert master.progress[-1] == 1
    assert not master.early_exits
    assert not master.acknowledgements

    assert master.checkpoints[-1].metadata["steps_completed"] == 20
    for checkpoint in master.checkpoints:
        assert_whole(checkpoint, storage)


def test_every_reported_metric_is_a_finite_number(completed: tuple[StandInMaster, Task]) -> None:
    master, _ = completed
    values = [value for report in master.reports for value in report.metrics.values()]
    assert values
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    assert all("val_nlpd" in report.metrics for report in master.reported("validation"))


def test_the_image_keeps_its_stack_and_gains_the_project(
    image: Image, completed: tuple[StandInMaster, Task]
) -> None:
    kept = {name: metadata.version(name) for name in IMAGES_OWN}
    kept["tensorflow"] = metadata.version("tensorflow") + VENDOR_BUILD
    assert image.versions(kept) == kept
    assert (image.installed / "natdgp" / "trial").is_dir()
    _, task = completed
    assert image.versions(["natdgp"])["natdgp"] in task.log, task.log


def test_a_pause_checkpoints_and_ends_the_task_in_order(
    paused: tuple[StandInMaster, Task], storage: Path
) -> None:
    master, task = paused
    assert task.exit_code == 0, task.log
    assert not master.unknown
    assert steps(master, "training") == [5]
    assert not steps(master, "validation")
    assert master.acknowledgements == 1
    assert master.checkpoints[0].metadata["steps_completed"] == 5
    assert_whole(master.checkpoints[0], storage)


def test_a_resumed_trial_ends_where_an_uninterrupted_one_does(
    resumed: tuple[StandInMaster, Task], completed: tuple[StandInMaster, Task]
) -> None:
    master, task = resumed
    assert task.exit_code == 0, task.log
    assert not master.unknown
    assert "natdgp 0" in task.log, task.log
    assert "is installed already" in task.log, "the second startup hook has nothing to do"
    assert steps(master, "training", run=2) == [10, 15, 20]
    assert steps(master, "validation", run=2) == [10, 20]
    assert master.progress[-1] == 1

    # The same sums in the same order but for the threads' share of them, hence not bit for bit.
    uninterrupted, _ = completed
    for one, other in zip(
        master.reported("validation", run=2), uninterrupted.reported("validation"), strict=True
    ):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-6)


def test_an_invalid_hyperparameter_is_reported_and_no_failure(
    image: Image, context: str, storage: Path, tmp_path: Path
) -> None:
    config = short_flights(storage)
    hparams = sample(config["hyperparameters"])
    hparams["natural_gradient"]["gamma"] = -1.0
    with StandInMaster(config, context) as master:
        task = run_trial(image, master, tmp_path / "task", hparams=hparams)
    assert task.exit_code == 0, task.log
    assert master.early_exits == ["EXITED_REASON_INVALID_HP"]
    assert "natural_gradient.gamma" in task.log, "the log says which one"
    assert not master.reports
    assert not master.unknown
