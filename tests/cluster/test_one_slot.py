"""The flights experiment on one slot: Determined's own steps, launcher and harness."""

from __future__ import annotations

import math
from importlib import metadata
from pathlib import Path

from natdgp.checkpoint.record import ModelRecord
from natdgp.checkpoint.training_state import read_state
from tests.cluster.container import Task, run_trial
from tests.cluster.flights import STEPS, short_flights
from tests.cluster.image import VENDOR_BUILD, Image
from tests.cluster.master import StandInMaster, steps
from tests.cluster.submission import sample

IMAGES_OWN = ("numpy", "horovod", "keras", "protobuf", "h5py", "determined")


def test_a_trial_runs_to_its_end(completed: tuple[StandInMaster, Task], storage: Path) -> None:
    master, task = completed
    assert task.exit_code == 0, task.log
    assert not master.unknown
    assert steps(master, "training") == list(range(1, STEPS + 1))
    assert steps(master, "validation") == [6, 12, 18, STEPS]
    assert master.progress[-1] == 1
    assert not master.early_exits
    assert not master.acknowledgements

    assert master.checkpoints[-1].metadata["steps_completed"] == STEPS
    for checkpoint in master.checkpoints:
        assert checkpoint.state == "STATE_COMPLETED"
        folder = storage / checkpoint.uuid
        assert not [name for name in checkpoint.resources if not (folder / name).exists()]
        assert (folder / "determined-keras-model-weights.index").is_file()
        assert "callbacks" in read_state(folder)
        assert ModelRecord.of_checkpoint(folder).structure  # and all files are as they were written


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
    assert (image.installed / "natdgp" / "determined").is_dir()
    _, task = completed
    assert image.versions(["natdgp"])["natdgp"] in task.log, task.log


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
