from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import determined as det
import numpy as np
import pytest
import tensorflow as tf
from determined import keras

from natdgp.settings import SettingsError
from natdgp.trial import DeepGPTrial
from natdgp.trial import trial as trial_module
from natdgp.trial.trial import TASK_KEY


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


def test_several_slots_are_refused_by_name(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context(small_experiment)
    monkeypatch.setattr(context, "distributed", SimpleNamespace(size=2))
    with pytest.raises(NotImplementedError, match=r"2 slots.*resources\.slots_per_trial: 1"):
        DeepGPTrial(context)


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
    monkeypatch.setattr(trial_module, "prepare", refuse)
    monkeypatch.setattr(tf, "Variable", refuse)
    monkeypatch.setattr(tf, "constant", refuse)
    trial = DeepGPTrial(context)
    with pytest.raises(AssertionError):
        _ = trial.prepared


def test_data_are_read_once_for_model_and_loaders(
    small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    prepare = trial_module.prepare

    def count(*args: Any) -> Any:
        reads.append("read")
        return prepare(*args)

    monkeypatch.setattr(trial_module, "prepare", count)
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
        "TerminateOnNaN",
    ]
