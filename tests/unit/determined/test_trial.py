from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import determined as det
import numpy as np
import pytest
import tensorflow as tf

from natdgp.data.prepare import prepare
from natdgp.data.table import DataError
from natdgp.determined.context import DeepGPContext
from natdgp.determined.trial import TASK_KEY, DeepGPTrial
from natdgp.distributed.reducer import OneProcess
from natdgp.settings.problems import SettingsError
from natdgp.training import task as task_module
from natdgp.training.assembly import build_training_model
from natdgp.training.steppers import Aggregation
from tests.integration.conftest import Bench, Record
from tests.integration.states import assert_same_figures, variables


def _context(config: dict[str, Any]) -> Any:
    return DeepGPContext.from_config(config)


@pytest.fixture
def invalid(caplog: pytest.LogCaptureFixture) -> Callable[[Callable[[], Any]], str]:
    """What the InvalidHP that something raises says, and the log too."""

    def message(act: Callable[[], Any]) -> str:
        with caplog.at_level(logging.ERROR, "natdgp"), pytest.raises(det.InvalidHP) as raised:
            act()
        assert raised.value.msg in caplog.text
        return str(raised.value.msg)

    return message


def test_all_wrong_hyperparameters_are_one_invalid_hp(
    small_experiment: dict[str, Any], invalid: Any
) -> None:
    small_experiment["hyperparameters"]["model"]["layers"] = 0
    small_experiment["hyperparameters"]["adam"]["learning_rat"] = 0.1
    text = invalid(lambda: DeepGPTrial(_context(small_experiment)))
    assert "hyperparameters.model.layers: received 0; must be" in text
    assert "hyperparameters.adam.learning_rat: received 0.1;" in text
    assert "did you mean learning_rate?" in text


@pytest.mark.parametrize(
    ("layers", "problems"),
    [(2, {"data.source"}), (0, {"data.source", "hyperparameters.model.layers"})],
    ids=["alone", "beside wrong hyperparameters"],
)
def test_wrong_data_is_no_fault_of_the_hyperparameters(
    small_experiment: dict[str, Any], layers: int, problems: set[str]
) -> None:
    small_experiment["data"]["source"] = "cvs"
    small_experiment["hyperparameters"]["model"]["layers"] = layers
    with pytest.raises(SettingsError) as raised:
        DeepGPTrial(_context(small_experiment))
    assert {problem.path for problem in raised.value.problems} == problems


def test_a_batch_that_slots_cannot_share_is_an_invalid_hp(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, invalid: Any
) -> None:
    context = _context(small_experiment)
    monkeypatch.setattr(context, "distributed", SimpleNamespace(size=3, rank=0))
    text = invalid(lambda: DeepGPTrial(context))
    assert "hyperparameters.global_batch_size is 32, which 3 slots cannot share" in text
    assert "use 30 or 33" in text


def test_several_slots_have_blocks_of_a_batch(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context(small_experiment)
    monkeypatch.setattr(context, "distributed", SimpleNamespace(size=4))
    ranks = SimpleNamespace(size=4, rank=2)
    monkeypatch.setattr(DeepGPContext, "reducer", property(lambda _: ranks))
    monkeypatch.setattr(context, "get_initial_batch", lambda: 7)
    monkeypatch.setattr(context, "wrap_dataset", lambda dataset: dataset.shard(4, 2))
    trial = DeepGPTrial(context)
    training = next(iter(trial.build_training_data_loader()))
    np.testing.assert_array_equal(training["positions"], 7 * 32 + 2 * 8 + np.arange(8))
    validation = [len(batch["positions"]) for batch in trial.build_validation_data_loader()]
    assert validation == [4, 4]  # of 30 rows, the last two batches of 16 have 4, 4, 4, 2


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the building of a model was given."""
    given: dict[str, Any] = {}

    def build(*args: Any, **kwargs: Any) -> Any:
        given.update(kwargs)
        return build_training_model(*args, **kwargs)

    monkeypatch.setattr(task_module, "build_training_model", build)
    return given


@pytest.mark.parametrize(
    ("rank", "reads"), [(0, True), (1, False)], ids=["the chief", "another rank"]
)
def test_the_chief_alone_makes_the_initial_values(
    small_experiment: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
    rank: int,
    reads: bool,
) -> None:
    reducer = OneProcess()
    monkeypatch.setattr(reducer, "rank", rank)
    monkeypatch.setattr(DeepGPContext, "reducer", property(lambda _: reducer))
    model = DeepGPTrial(_context(small_experiment)).build_model()
    assert (given["X"] is not None) is reads
    assert given["reducer"] is model.reducer is reducer


@pytest.mark.parametrize("average", [True, False])
def test_gradients_are_aggregated_as_the_optimizations_say(
    small_experiment: dict[str, Any], given: dict[str, Any], average: bool
) -> None:
    context = _context(small_experiment)
    context.get_experiment_config()["optimizations"] |= {  # `from_config` has its own
        "aggregation_frequency": 3,
        "average_aggregated_gradients": average,
    }
    model = DeepGPTrial(context).build_model()
    assert given["aggregation"] == Aggregation(3, average)
    assert model.aggregated is not None


def test_more_inducing_points_than_rows_is_an_invalid_hp(
    small_experiment: dict[str, Any], invalid: Any
) -> None:
    small_experiment["hyperparameters"]["model"]["inducing_points"] = 241  # 240 rows train
    assert "241" in invalid(DeepGPTrial(_context(small_experiment)).build_model)


def test_constructing_a_trial_does_no_tensorflow_work_and_reads_no_data(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError

    context = _context(small_experiment)
    monkeypatch.setattr(task_module, "prepare", refuse)
    monkeypatch.setattr(tf, "Variable", refuse)
    monkeypatch.setattr(tf, "constant", refuse)
    trial = DeepGPTrial(context)
    with pytest.raises(AssertionError):
        _ = trial.task.prepared


def test_data_are_read_once_for_model_and_loaders(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def count(*args: Any, **kwargs: Any) -> Any:
        reads.append("read")
        return prepare(*args, **kwargs)

    monkeypatch.setattr(task_module, "prepare", count)
    trial = DeepGPTrial(_context(small_experiment))
    trial.build_model()
    training = next(iter(trial.build_training_data_loader()))
    rows = sum(len(batch["inputs"]) for batch in trial.build_validation_data_loader())
    assert (training["inputs"].shape, rows) == ((32, 3), 30)
    assert len(reads) == 1


def test_the_saved_task_stands_in_for_the_data(
    small_experiment: dict[str, Any], waves: tuple[Any, Any]
) -> None:
    trial = DeepGPTrial(_context(small_experiment))
    record = trial.task.record
    config = trial.context.get_experiment_config()
    Path(small_experiment["data"]["path"]).unlink()
    shell = DeepGPTrial(_context(config))
    assert shell.task.record.to_dict() == record.to_dict()
    assert shell.settings == trial.settings
    assert shell.build_model().deep_gp.f_layers[0].q_mu.shape == (10, 3)
    assert TASK_KEY in config["data"]
    np.testing.assert_allclose(record.scaling.x_mean, waves[0].mean(axis=0), atol=0.2)


def _one_layer(config: dict[str, Any]) -> None:
    config["hyperparameters"]["model"] = {"layers": 1, "inducing_points": 5}


def test_determineds_loop_and_the_engines_end_in_the_same_bits(
    record: Record, bench: Bench, small_experiment: dict[str, Any]
) -> None:
    hyperparameters = small_experiment["hyperparameters"]
    hyperparameters["adam"] = {"learning_rate": 0.01}
    hyperparameters["early_stopping"] = {"patience": 50}
    hyperparameters["reduce_lr_on_plateau"] = {"patience": 1, "min_delta": 100.0, "factor": 0.1}
    small_experiment["perform_initial_validation"] = True
    trial = record(small_experiment, "trial").run()
    run = bench.new(small_experiment, "run")
    steps = bench.go(run).steps
    for group, reports in trial.reports.items():
        own = bench.metrics(run, group)
        assert own.keys() == reports.keys()
        for step, figures in reports.items():
            assert_same_figures(own[step], figures, f"{group} at {step}")
    ours, theirs = (
        variables(path) for path in (run.checkpoint(steps).path, trial.checkpoint(steps))
    )
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)


@pytest.mark.parametrize("pause", [4, 6])
def test_a_paused_trial_equals_one_that_ran_through(
    record: Record, small_experiment: dict[str, Any], pause: int
) -> None:
    """Early stopping remembers its validations, of which a pause must lose none."""
    hyperparameters = small_experiment["hyperparameters"]
    hyperparameters["early_stopping"] = {"patience": 2, "min_delta": 100.0}
    straight = record(small_experiment, "straight").run()
    paused = record(small_experiment, "paused", preempt_at=pause).run()
    assert max(paused.reports["training"]) == pause
    paused.run()
    assert max(paused.reports["training"]) == max(straight.reports["training"]) == 12
    assert paused.reports == straight.reports
    assert paused.run().reports == straight.reports  # a trial that was stopped trains no further


def test_schedules_stay_whatever_keras_callbacks_returns(
    record: Record, small_experiment: dict[str, Any]
) -> None:
    class Counts(tf.keras.callbacks.Callback):
        batches = 0

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            Counts.batches += 1

    class Mine(DeepGPTrial):
        def keras_callbacks(self) -> list[tf.keras.callbacks.Callback]:
            return [Counts()]

    plain = record(small_experiment, "plain").run()
    own = record(small_experiment, "own", trial_class=Mine).run()
    assert Counts.batches == 12
    assert own.reports == plain.reports
    assert len({report["gamma"] for report in own.reports["training"].values()}) > 2


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "exponential", "decay_rate": 0.5, "decay_steps": 10},
        {"name": "per_epoch", "factor": 0.1},
    ],
    ids=lambda schedule: schedule["name"],
)
def test_a_fork_keeps_the_parameters_and_restarts_the_schedules(
    record: Record, small_experiment: dict[str, Any], schedule: dict[str, Any]
) -> None:
    _one_layer(small_experiment)
    small_experiment["hyperparameters"]["adam"]["schedule"] = schedule
    small_experiment["records_per_epoch"] = 4 * 32
    small_experiment["perform_initial_validation"] = True
    parent = record(small_experiment, "parent").run()
    child = record(small_experiment, "child").run(parent.checkpoint(parent.saved[-1]))
    before, after = parent.reports["validation"], child.reports["validation"]
    # 1e-12: the same parameters in another process of summation
    assert after[0]["val_nlpd"] == pytest.approx(before[12]["val_nlpd"], rel=1e-12)
    assert before[0]["val_nlpd"] != pytest.approx(before[12]["val_nlpd"], rel=1e-3)
    lengths = [
        {
            steps: (metrics["gamma"], metrics["learning_rate"], metrics["epochs"])
            for steps, metrics in trial.reports["training"].items()
        }
        for trial in (parent, child)
    ]
    assert lengths[0] == lengths[1]
    assert len(set(lengths[0].values())) > 2


def test_a_fork_takes_its_own_learning_rate_and_forgets_its_parents_validations(
    record: Record, small_experiment: dict[str, Any]
) -> None:
    _one_layer(small_experiment)
    hyperparameters = small_experiment["hyperparameters"]
    hyperparameters["adam"] = {"learning_rate": 0.01}
    hyperparameters["early_stopping"] = {"patience": 2, "min_delta": 100.0}
    hyperparameters["reduce_lr_on_plateau"] = {"patience": 1, "min_delta": 100.0, "factor": 0.5}
    parent = record(small_experiment, "parent").run()
    assert parent.reports["training"][12]["learning_rate"] == pytest.approx(0.005, rel=1e-6)

    hyperparameters["adam"] = {"learning_rate": 0.02}
    child = record(small_experiment, "child").run(parent.checkpoint(parent.saved[-1]))
    # with its parent's memory it would stop after step 4
    assert max(child.reports["training"]) == 12
    rates = {s: m["learning_rate"] for s, m in child.reports["training"].items()}
    assert rates[2] == rates[8] == pytest.approx(0.02, rel=1e-6)  # float32
    assert rates[10] == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize(("theirs", "ours"), [(1, 3), (3, 1)])
def test_a_fork_may_aggregate_otherwise(
    record: Record, small_experiment: dict[str, Any], theirs: int, ours: int
) -> None:
    _one_layer(small_experiment)
    small_experiment["searcher"]["max_length"] = {"batches": 4}
    small_experiment["optimizations"] = {"aggregation_frequency": theirs}
    parent = record(small_experiment, "parent").run()
    small_experiment["optimizations"] = {"aggregation_frequency": ours}
    small_experiment["perform_initial_validation"] = True
    child = record(small_experiment, "child").run(parent.checkpoint(4))
    before, after = parent.reports["validation"], child.reports["validation"]
    # 1e-12: the same parameters in another process of summation
    assert after[0]["val_nlpd"] == pytest.approx(before[4]["val_nlpd"], rel=1e-12)
    assert after[4]["val_nlpd"] != pytest.approx(after[0]["val_nlpd"], rel=1e-6)


def test_a_checkpoint_of_another_model_is_an_invalid_hp_that_names_every_field(
    record: Record, small_experiment: dict[str, Any]
) -> None:
    _one_layer(small_experiment)
    small_experiment["searcher"]["max_length"] = {"batches": 1}
    parent = record(small_experiment, "parent").run()
    small_experiment["hyperparameters"]["model"] = {
        "layers": 1,
        "inducing_points": 6,
        "dtype": "float32",
    }
    small_experiment["data"]["features"] = ["a", "b"]
    with pytest.raises(det.InvalidHP) as raised:
        record(small_experiment, "child").run(parent.checkpoint(1))
    first, *problems = raised.value.msg.splitlines()
    assert first.endswith("parent/step-1 is a checkpoint of another model:")
    assert problems == [
        "  - hyperparameters.model.inducing_points is 6, but 5 in the checkpoint",
        "  - hyperparameters.model.dtype is float32, but float64 in the checkpoint",
        "  - data.features is a, b, but a, b, c in the checkpoint",
    ]


def test_data_that_changed_since_the_trial_began_are_refused(
    record: Record, small_experiment: dict[str, Any]
) -> None:
    _one_layer(small_experiment)
    small_experiment["searcher"]["max_length"] = {"batches": 2}
    trial = record(small_experiment, "trial").run()
    table = Path(small_experiment["data"]["path"])
    *rows, last = table.read_text().splitlines()
    table.write_text("\n".join([*rows, last.replace(",", ",1", 1)]) + "\n")
    with pytest.raises(DataError, match="values in them changed; bring the former data back"):
        trial.run()
    table.write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match="there were 240 training rows, and now there are 239"):
        trial.run()
