from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import determined as det
import numpy as np
import pytest
import tensorflow as tf
from determined import keras
from natdgp.training.aggregation import Aggregation
from natdgp.training.builder import build_training_model

from natdgp.data.prepare import prepare
from natdgp.data.table import DataError
from natdgp.determined import DeepGPTrial
from natdgp.determined.trial import TASK_KEY
from natdgp.distributed.reducer import OneProcess
from natdgp.run import local_training as local_run
from natdgp.run.local_training import Outcome, train
from natdgp.run.run_folder import RunFolder
from natdgp.run.run_session import new_run
from natdgp.settings import SettingsError, read_experiment
from tests.conftest import REPOSITORY
from tests.integration.conftest import Bench, Watcher

TRIAL_MODULE = sys.modules[DeepGPTrial.__module__]


def _context(config: dict[str, Any]) -> keras.TFKerasTrialContext:
    return keras.TFKerasTrialContext.from_config(config)


def test_all_wrong_hyperparameters_are_one_invalid_hp_and_are_logged(
    small_experiment: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    small_experiment["hyperparameters"]["model"]["layers"] = 0
    small_experiment["hyperparameters"]["adam"]["learning_rat"] = 0.1
    context = _context(small_experiment)
    with caplog.at_level(logging.ERROR, "natdgp"), pytest.raises(det.InvalidHP) as raised:
        DeepGPTrial(context)
    for text in (raised.value.msg, caplog.text):
        assert "hyperparameters.model.layers: received 0; must be" in text
        assert "hyperparameters.adam.learning_rat: received 0.1;" in text
        assert "did you mean learning_rate?" in text


def test_wrong_data_is_no_fault_of_the_hyperparameters(small_experiment: dict[str, Any]) -> None:
    small_experiment["data"]["sourc"] = small_experiment["data"].pop("source")
    with pytest.raises(SettingsError, match=r"data\.source: required"):
        DeepGPTrial(_context(small_experiment))


def test_wrong_data_beside_wrong_hyperparameters_tells_of_both(
    small_experiment: dict[str, Any],
) -> None:
    small_experiment["data"]["source"] = "cvs"
    small_experiment["hyperparameters"]["model"]["layers"] = 0
    with pytest.raises(SettingsError) as raised:
        DeepGPTrial(_context(small_experiment))
    assert {problem.path for problem in raised.value.problems} == {
        "data.source",
        "hyperparameters.model.layers",
    }


def test_a_batch_that_slots_cannot_share_is_an_invalid_hp_and_is_logged(
    small_experiment: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = _context(small_experiment)
    monkeypatch.setattr(context, "distributed", SimpleNamespace(size=3))
    with caplog.at_level(logging.ERROR, "natdgp"), pytest.raises(det.InvalidHP) as raised:
        DeepGPTrial(context)
    for text in (raised.value.msg, caplog.text):
        assert "hyperparameters.global_batch_size is 32, which 3 slots cannot share" in text
        assert "use 30 or 33" in text


def test_several_slots_have_blocks_of_a_batch(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context(small_experiment)
    monkeypatch.setattr(context, "distributed", SimpleNamespace(size=4))
    monkeypatch.setattr(context, "get_initial_batch", lambda: 7)
    monkeypatch.setattr(context, "wrap_dataset", lambda dataset: dataset.shard(4, 2))
    trial = DeepGPTrial(context)
    training = next(iter(trial.build_training_data_loader()))
    np.testing.assert_array_equal(training["positions"], 7 * 32 + 2 * 8 + np.arange(8))
    validation = [len(batch["positions"]) for batch in trial.build_validation_data_loader()]
    assert validation == [4, 4]  # of 30 rows, the last two batches of 16 have 4, 4, 4, 2


@pytest.mark.parametrize(
    ("rank", "reads"), [(0, True), (1, False)], ids=["the chief", "another rank"]
)
def test_the_chief_alone_makes_the_initial_values(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, rank: int, reads: bool
) -> None:
    class Rank(OneProcess):
        def __init__(self) -> None:
            self.rank = rank

    reducer = Rank()
    given: dict[str, Any] = {}

    def build(*args: Any, **kwargs: Any) -> Any:
        given.update(kwargs)
        return build_training_model(*args, **kwargs)

    monkeypatch.setattr(TRIAL_MODULE, "build_training_model", build)
    monkeypatch.setattr(DeepGPTrial, "_reducer", lambda self: reducer)
    model = DeepGPTrial(_context(small_experiment)).build_model()
    assert (given["X"] is not None) is reads
    assert given["reducer"] is model.reducer is reducer


def test_one_slot_is_one_process(small_experiment: dict[str, Any]) -> None:
    model = DeepGPTrial(_context(small_experiment)).build_model()
    assert isinstance(model.reducer, OneProcess)
    assert model.aggregator is None


@pytest.mark.parametrize("average", [True, False])
def test_gradients_are_aggregated_as_the_optimizations_say(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, average: bool
) -> None:
    context = _context(small_experiment)
    context.get_experiment_config()["optimizations"] |= {  # `from_config` has its own
        "aggregation_frequency": 3,
        "average_aggregated_gradients": average,
    }
    given: dict[str, Any] = {}

    def build(*args: Any, **kwargs: Any) -> Any:
        given.update(kwargs)
        return build_training_model(*args, **kwargs)

    monkeypatch.setattr(TRIAL_MODULE, "build_training_model", build)
    model = DeepGPTrial(context).build_model()
    assert given["aggregation"] == Aggregation(3, average)
    assert model.aggregator is not None


def test_more_inducing_points_than_rows_is_an_invalid_hp(
    small_experiment: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    small_experiment["hyperparameters"]["model"]["inducing_points"] = 241  # 240 rows train
    trial = DeepGPTrial(_context(small_experiment))
    with caplog.at_level(logging.ERROR, "natdgp"), pytest.raises(det.InvalidHP, match="241") as hp:
        trial.build_model()
    assert hp.value.msg in caplog.text


def test_constructing_a_trial_does_no_tensorflow_work_and_reads_no_data(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError

    context = _context(small_experiment)
    monkeypatch.setattr(TRIAL_MODULE, "prepare", refuse)
    monkeypatch.setattr(tf, "Variable", refuse)
    monkeypatch.setattr(tf, "constant", refuse)
    trial = DeepGPTrial(context)
    with pytest.raises(AssertionError):
        _ = trial.prepared


def test_data_are_read_once_for_model_and_loaders(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def count(*args: Any) -> Any:
        reads.append("read")
        return prepare(*args)

    monkeypatch.setattr(TRIAL_MODULE, "prepare", count)
    trial = DeepGPTrial(_context(small_experiment))
    trial.build_model()
    training = next(iter(trial.build_training_data_loader()))
    rows = sum(len(batch["inputs"]) for batch in trial.build_validation_data_loader())
    assert (training["inputs"].shape, rows) == ((32, 3), 30)
    assert len(reads) == 1


def test_training_starts_at_the_step_behind_the_checkpoint(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = DeepGPTrial(_context(small_experiment))
    assert next(iter(trial.build_training_data_loader()))["positions"][0] == 0
    monkeypatch.setattr(trial.context, "get_initial_batch", lambda: 7)
    assert next(iter(trial.build_training_data_loader()))["positions"][0] == 7 * 32


def test_model_is_compiled_with_natural_gradients_first_and_adam_last(
    small_experiment: dict[str, Any],
) -> None:
    small_experiment["hyperparameters"]["natural_gradient"]["layers"] = "all"
    model = DeepGPTrial(_context(small_experiment)).build_model()
    assert [float(natural.gamma) for natural in model.natgrad_optimizers] == pytest.approx(
        [0.01, 0.01], rel=1e-12
    )
    assert model.optimizer.name == "Adam"


def test_the_saved_task_stands_in_for_the_data(
    small_experiment: dict[str, Any], waves: tuple[Any, Any]
) -> None:
    trial = DeepGPTrial(_context(small_experiment))
    record = trial.record
    config = trial.context.get_experiment_config()
    Path(small_experiment["data"]["path"]).unlink()
    shell = DeepGPTrial(_context(config))
    assert shell.record.task.to_dict() == record.task.to_dict()
    assert shell.settings == trial.settings
    assert shell.build_model().deep_gp.f_layers[0].q_mu.shape == (10, 3)
    assert TASK_KEY in config["data"]
    np.testing.assert_allclose(record.task.scaling.x_mean, waves[0].mean(axis=0), atol=0.2)


def test_every_part_can_be_overridden_alone(small_experiment: dict[str, Any]) -> None:
    class Mine(DeepGPTrial):
        def keras_callbacks(self) -> list[tf.keras.callbacks.Callback]:
            return [*super().keras_callbacks(), tf.keras.callbacks.TerminateOnNaN()]

    callbacks = Mine(_context(small_experiment)).keras_callbacks()
    assert [type(callback).__name__ for callback in callbacks] == [
        "StepLengthSchedule",
        "DriftCheck",
        "TerminateOnNaN",
    ]


@pytest.fixture
def bench(tmp_path: Path, write_experiment: Callable[[dict[str, Any]], Path]) -> Bench:
    return Bench(tmp_path, write_experiment)


def test_a_users_copy_with_callbacks_of_its_own_runs(
    small_experiment: dict[str, Any],
    write_experiment: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
) -> None:
    copy = tmp_path / "source" / "my_trials" / "waves.py"
    copy.parent.mkdir(parents=True)
    copy.write_text(
        (REPOSITORY / "trials" / "deep_gp.py").read_text()
        + """
    def keras_callbacks(self):
        return [*super().keras_callbacks(), CountsSteps()]


import pathlib
import tensorflow as tf


class CountsSteps(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        with pathlib.Path("../steps").open("a") as file:
            file.write(f"{self.model.optimizer.learning_rate.numpy():.4f} ")
"""
    )
    small_experiment["entrypoint"] = small_experiment["entrypoint"].replace(
        "trials.deep_gp", "my_trials.waves"
    )
    small_experiment["searcher"]["max_length"] = {"batches": 3}
    experiment = read_experiment(write_experiment(small_experiment))
    folder = new_run(experiment, copy.parents[1], tmp_path / "run")
    assert train(experiment, folder, Watcher()).steps == 3
    # 0.01 * 0.5 ** (step / 10): the schedules of the base class are at work as well
    assert (folder.root / "steps").read_text() == "0.0100 0.0093 0.0087 "


def _fork(
    bench: Bench,
    config: dict[str, Any],
    parent: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[RunFolder, Outcome]:
    """Train a new trial from another's checkpoint, as a cluster does when it is forked."""
    folder = bench.new(config, "fork")
    shutil.copytree(parent, folder.root / "checkpoints" / "parent")
    environment = local_run._environment

    def forked(*args: Any) -> det.EnvContext:
        env = environment(*args)
        env.latest_checkpoint, env.steps_completed, env.det_trial_id = "parent", 0, "2"
        return env

    monkeypatch.setattr(local_run, "_environment", forked)
    return folder, bench.go(folder)


def _one_layer(config: dict[str, Any]) -> None:
    config["hyperparameters"]["model"] = {"layers": 1, "inducing_points": 5}


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "exponential", "decay_rate": 0.5, "decay_steps": 10},
        {"name": "per_epoch", "factor": 0.1},
    ],
    ids=lambda schedule: schedule["name"],
)
def test_a_fork_keeps_the_parameters_and_restarts_the_schedules(
    bench: Bench,
    small_experiment: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    schedule: dict[str, Any],
) -> None:
    _one_layer(small_experiment)
    small_experiment["hyperparameters"]["adam"]["schedule"] = schedule
    small_experiment["records_per_epoch"] = 4 * 32
    small_experiment["perform_initial_validation"] = True
    parent = bench.new(small_experiment, "parent")
    outcome = bench.go(parent)
    last = parent.checkpoint(outcome.steps).path
    child, _ = _fork(bench, small_experiment, last, monkeypatch)

    before, after = bench.metrics(parent, "validation"), bench.metrics(child, "validation")
    # 1e-12: the same parameters in another process of summation
    assert after[0]["val_nlpd"] == pytest.approx(before[12]["val_nlpd"], rel=1e-12)
    assert before[0]["val_nlpd"] != pytest.approx(before[12]["val_nlpd"], rel=1e-3)

    lengths = [
        {
            steps: (metrics["gamma"], metrics["learning_rate"], metrics["epochs"])
            for steps, metrics in bench.metrics(folder, "training").items()
        }
        for folder in (parent, child)
    ]
    assert lengths[0] == lengths[1]
    assert len(set(lengths[0].values())) > 2


def test_a_fork_takes_its_own_learning_rate_and_forgets_its_parents_validations(
    bench: Bench, small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _one_layer(small_experiment)
    hyperparameters = small_experiment["hyperparameters"]
    hyperparameters["adam"] = {"learning_rate": 0.01}
    hyperparameters["early_stopping"] = {"patience": 2, "min_delta": 100.0}
    hyperparameters["reduce_lr_on_plateau"] = {"patience": 1, "min_delta": 100.0, "factor": 0.5}
    parent = bench.new(small_experiment, "parent")
    outcome = bench.go(parent)
    assert bench.metrics(parent, "training")[12]["learning_rate"] == pytest.approx(0.005, rel=1e-6)

    hyperparameters["adam"] = {"learning_rate": 0.02}
    child, outcome = _fork(
        bench, small_experiment, parent.checkpoint(outcome.steps).path, monkeypatch
    )
    # with its parent's memory it would stop after step 4
    assert outcome.steps == 12
    rates = {s: m["learning_rate"] for s, m in bench.metrics(child, "training").items()}
    assert rates[2] == rates[8] == pytest.approx(0.02, rel=1e-6)  # float32
    assert rates[10] == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize(("theirs", "ours"), [(1, 3), (3, 1), (3, 2)])
def test_a_fork_may_aggregate_otherwise(
    bench: Bench,
    small_experiment: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    theirs: int,
    ours: int,
) -> None:
    _one_layer(small_experiment)
    small_experiment["searcher"]["max_length"] = {"batches": 4}
    small_experiment["optimizations"] = {"aggregation_frequency": theirs}
    parent = bench.new(small_experiment, "parent")
    bench.go(parent)
    small_experiment["optimizations"] = {"aggregation_frequency": ours}
    small_experiment["perform_initial_validation"] = True
    child, _ = _fork(bench, small_experiment, parent.checkpoint(4).path, monkeypatch)
    before, after = bench.metrics(parent, "validation"), bench.metrics(child, "validation")
    # 1e-12: the same parameters in another process of summation
    assert after[0]["val_nlpd"] == pytest.approx(before[4]["val_nlpd"], rel=1e-12)
    assert after[4]["val_nlpd"] != pytest.approx(after[0]["val_nlpd"], rel=1e-6)


def test_a_checkpoint_of_another_model_is_an_invalid_hp_that_names_every_field(
    bench: Bench,
    small_experiment: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _one_layer(small_experiment)
    small_experiment["searcher"]["max_length"] = {"batches": 1}
    parent = bench.new(small_experiment, "parent")
    bench.go(parent)
    small_experiment["hyperparameters"]["model"] = {
        "layers": 1,
        "inducing_points": 6,
        "dtype": "float32",
    }
    small_experiment["data"]["features"] = ["a", "b"]
    with pytest.raises(det.InvalidHP) as raised:
        _fork(bench, small_experiment, parent.checkpoint(1).path, monkeypatch)
    first, *problems = raised.value.msg.splitlines()
    assert first.endswith("checkpoints/parent is a checkpoint of another model:")
    assert problems == [
        "  - hyperparameters.model.inducing_points is 6, but 5 in the checkpoint",
        "  - hyperparameters.model.dtype is float32, but float64 in the checkpoint",
        "  - data.features is a, b, but a, b, c in the checkpoint",
    ]


def test_data_that_changed_since_the_trial_began_are_refused(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    _one_layer(small_experiment)
    small_experiment["searcher"]["max_length"] = {"batches": 2}
    folder = bench.new(small_experiment)
    bench.go(folder)
    table = Path(small_experiment["data"]["path"])
    *rows, last = table.read_text().splitlines()
    table.write_text("\n".join([*rows, last.replace(",", ",1", 1)]) + "\n")
    with pytest.raises(DataError, match="values in them changed; bring the former data back"):
        bench.go(folder)
    table.write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match="there were 240 training rows, and now there are 239"):
        bench.go(folder)
