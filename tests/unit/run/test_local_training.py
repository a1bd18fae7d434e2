from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf
from determined.layers import WorkloadSequencer

from natdgp.run.local_training import plan_of, train
from natdgp.run.run_folder import RunFolder
from natdgp.settings.experiment import Experiment, read_experiment
from natdgp.settings.schema import Settings
from natdgp.training.model import DeepGPModel
from tests.integration.conftest import Bench, Watcher


@pytest.mark.parametrize(
    ("unit", "length", "batch_size"),
    [*itertools.product(["batches", "records", "epochs"], [1, 3, 31, 32, 33, 100], [1, 32, 100])],
)
def test_length_is_the_sequencers_own(unit: str, length: int, batch_size: int) -> None:
    sequencer = SimpleNamespace(records_per_epoch=70, global_batch_size=batch_size)
    config = {
        "searcher": {"max_length": {unit: length}, "metric": "val_nlpd", "smaller_is_better": True},
        "records_per_epoch": 70,
        "scheduling_unit": 100,
        "min_validation_period": {"batches": 0},
        "min_checkpoint_period": {unit: length},
        "checkpoint_policy": "best",
        "perform_initial_validation": False,
    }
    settings = Settings.read({"global_batch_size": batch_size}, {"source": "flights"})
    expected = WorkloadSequencer.as_batches(sequencer, **{unit: length})
    plan = plan_of(Experiment(config, settings))
    assert (plan.length, plan.save_every, plan.validate_every) == (expected, expected, None)


@pytest.fixture
def bench(tmp_path: Path, write_experiment: Callable[[dict[str, Any]], Path]) -> Bench:
    return Bench(tmp_path, write_experiment)


@pytest.fixture
def shallow(small_experiment: dict[str, Any]) -> dict[str, Any]:
    """One layer, six steps of 32 records, every checkpoint kept."""
    small_experiment["hyperparameters"] = {
        "global_batch_size": 32,
        "model": {"layers": 1, "inducing_points": 5},
        "evaluation": {"num_samples": 1, "batch_size": 30},
    }
    small_experiment["searcher"]["max_length"] = {"batches": 6}
    small_experiment["min_validation_period"] = {"batches": 2}
    small_experiment["checkpoint_storage"] = {"save_trial_best": 99, "save_trial_latest": 99}
    return small_experiment


def _run(bench: Bench, config: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Steps of the validations and of the checkpoints of a run of six steps."""
    folder = bench.new(config)
    outcome = bench.go(folder)
    assert (outcome.steps, outcome.completed, outcome.signal) == (6, True, None)
    checkpoints = [checkpoint.steps for checkpoint in folder.checkpoints()]
    return [*bench.metrics(folder, "validation")], checkpoints


def test_records_are_counted_and_policy_all_saves_every_validation(
    bench: Bench, shallow: dict[str, Any]
) -> None:
    shallow["searcher"]["max_length"] = {"records": 223}  # 6.97 batches
    shallow["min_validation_period"] = {"records": 70}  # 2.2 batches
    shallow["checkpoint_policy"] = "all"
    assert _run(bench, shallow) == ([2, 4, 6], [2, 4, 6])


def test_epochs_are_counted_and_policy_none_saves_the_end_alone(
    bench: Bench, shallow: dict[str, Any]
) -> None:
    shallow["searcher"]["max_length"] = {"epochs": 2}
    shallow["records_per_epoch"] = 100  # 2 epochs are 6.25 batches, one is 3.1
    shallow["min_validation_period"] = {"epochs": 1}
    shallow["checkpoint_policy"] = "none"
    shallow["perform_initial_validation"] = True
    assert _run(bench, shallow) == ([0, 3, 6], [6])


def test_checkpoint_period_is_kept_without_validations(
    bench: Bench, shallow: dict[str, Any]
) -> None:
    shallow["min_validation_period"] = {"batches": 0}
    shallow["min_checkpoint_period"] = {"batches": 4}
    shallow["checkpoint_policy"] = "none"
    assert _run(bench, shallow) == ([6], [4, 6])


@pytest.mark.parametrize(("keep", "kept"), [(99, [1, 2, 3, 6]), (1, [3, 6])])
def test_policy_best_saves_what_improves_where_larger_is_better(
    bench: Bench,
    shallow: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    keep: int,
    kept: list[int],
) -> None:
    # In a validation of one batch, in the place of the model's own.
    figures = iter([-3.0, -2.0, -1.0, -1.5, -1.0, -1.2])
    monkeypatch.setattr(
        DeepGPModel,
        "test_step",
        lambda *_: {"elbo_per_datum": tf.py_function(lambda: next(figures), [], tf.float64)},
    )
    shallow["searcher"] |= {"metric": "val_elbo_per_datum", "smaller_is_better": False}
    shallow["min_validation_period"] = {"batches": 1}
    shallow["checkpoint_storage"]["save_trial_best"] = keep
    shallow["checkpoint_storage"]["save_trial_latest"] = 1
    folder = bench.new(shallow)
    outcome = bench.go(folder)
    assert outcome.best == folder.checkpoint(3).path  # the first of two that are equally good
    assert [checkpoint.steps for checkpoint in folder.checkpoints()] == kept


def test_a_run_works_from_a_relative_folder(
    shallow: dict[str, Any],
    tmp_path: Path,
    write_experiment: Callable[[dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shallow["searcher"]["max_length"] = {"batches": 1}
    folder = RunFolder.create(Path("runs/relative"))
    experiment = read_experiment(write_experiment(shallow))
    assert train(experiment, folder, Watcher()).best == folder.checkpoint(1).path
    assert {path.name for path in Path("runs/relative").iterdir()} == {
        "best",
        "checkpoints",
        "code",
        "metrics.jsonl",
        "tensorboard",
    }
    assert {path.name for path in folder.checkpoint(1).path.iterdir()} == {
        "determined-keras-model-weights.data-00000-of-00001",
        "determined-keras-model-weights.index",
        "natdgp-files.json",
        "natdgp-state.json",
        "natdgp.json",
    }
