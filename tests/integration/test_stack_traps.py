"""What goes wrong when GPflux and Determined meet as they are, and that here it does not.

Each trap is shown with the stack's own class first, so that a test fails if the mend is removed
and says so if the stack has mended itself.
"""

from __future__ import annotations

from typing import Any

import determined as det
import gpflow
import gpflux
import numpy as np
import pytest
import tensorflow as tf
from determined import keras
from determined.keras import callbacks as determined_callbacks
from gpflow.inducing_variables import InducingPoints, SharedIndependentInducingVariables
from gpflow.kernels import SharedIndependent

from natdgp.determined import DeepGPTrial
from natdgp.determined.controller import DeepGPController
from natdgp.training.callbacks import EarlyStopping
from natdgp.training.evaluation import Evaluation
from natdgp.training.training_settings import EarlyStoppingSettings
from tests.conftest import FloatArray
from tests.determined_harness import RecordedTrial
from tests.integration.conftest import Record


@pytest.fixture(autouse=True)
def _quick(small_experiment: dict[str, Any]) -> None:
    small_experiment["hyperparameters"]["model"] = {"layers": 1, "inducing_points": 5}
    small_experiment["searcher"]["max_length"] = {"batches": 4}


def _without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Give the controller Determined's own method back."""
    monkeypatch.setattr(DeepGPController, name, getattr(keras.TFKerasTrialController, name))


def test_determineds_checkpoint_of_optimizers_crashes_on_variables_that_share_names(
    record: Record, small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, "_save_checkpoint")
    with pytest.raises(ValueError, match="name already exists"):
        record(small_experiment, "trial").run()


def test_stock_gpflux_validates_to_zero(waves: tuple[FloatArray, FloatArray]) -> None:
    X, Y = waves
    layer = gpflux.layers.GPLayer(
        SharedIndependent(gpflow.kernels.SquaredExponential(), output_dim=1),
        SharedIndependentInducingVariables(InducingPoints(X[:10])),
        num_data=len(X),
        mean_function=gpflow.mean_functions.Zero(),
        num_latent_gps=1,
        verbose=False,
    )
    deep_gp = gpflux.models.DeepGP([layer], gpflow.likelihoods.Gaussian(0.1))
    model = deep_gp.as_training_model()
    model.compile(tf.keras.optimizers.Adam())
    assert model.evaluate({"inputs": X, "targets": Y}, verbose=0, return_dict=True)["loss"] == 0


def test_determineds_early_stopping_forgets_its_best_value_and_ours_does_not() -> None:
    def stock() -> Any:
        return determined_callbacks.EarlyStopping(monitor="val_nlpd", patience=2)

    def ours() -> Any:
        return EarlyStopping(EarlyStoppingSettings(monitor="val_nlpd", patience=2))

    for build, remembers in ((stock, False), (ours, True)):
        before, after = build(), build()
        for one in (before, after):
            one.set_model(tf.keras.Model())
            one.on_train_begin()
        before.on_test_end({"val_nlpd": 1.5})
        after.load_state(before.get_state())
        after.on_test_end({"val_nlpd": 1.6})
        assert (after.wait == 1) is remembers


class _Constant(tf.keras.utils.Sequence):
    """Batches as the pipeline yields them, from a Sequence."""

    def __init__(self, X: FloatArray, Y: FloatArray, batch_size: int) -> None:
        self._X, self._Y, self._batch_size = X, Y, batch_size

    def __len__(self) -> int:
        return len(self._X) // self._batch_size

    def __getitem__(self, index: int) -> dict[str, Any]:
        positions = np.arange(index * self._batch_size, (index + 1) * self._batch_size)
        # As tensors: Keras would cast NumPy's float64 to float32.
        return {
            "inputs": tf.constant(self._X[positions]),
            "targets": tf.constant(self._Y[positions]),
            "positions": tf.constant(positions),
        }


class _Adapted(DeepGPTrial):
    def build_training_data_loader(self) -> Any:
        rows = self.task.prepared.train
        return keras.SequenceAdapter(_Constant(rows.X, rows.Y, 32), workers=1)

    def build_validation_data_loader(self) -> Any:
        rows = self.task.prepared.validation
        return keras.SequenceAdapter(_Constant(rows.X, rows.Y, 15))


def test_sequence_adapters_work(record: Record, small_experiment: dict[str, Any]) -> None:
    trial = record(small_experiment, "trial", trial_class=_Adapted).run()
    assert max(trial.reports["validation"]) == 4


def test_determineds_sequence_adapter_needs_a_method_that_does_not_exist(
    record: Record, small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Adapted, "trial_controller_class", keras.TFKerasTrialController)
    with pytest.raises(AttributeError, match="_configure_fit"):
        record(small_experiment, "trial", trial_class=_Adapted).run()


def test_epochs_of_no_records_do_not_end_after_every_batch(
    record: Record, small_experiment: dict[str, Any]
) -> None:
    begun: list[int] = []

    class CountsEpochs(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            begun.append(epoch)

    class Mine(DeepGPTrial):
        def keras_callbacks(self) -> list[tf.keras.callbacks.Callback]:
            return [CountsEpochs()]

    trial = record(small_experiment, "trial", trial_class=Mine)
    trial.experiment.config["records_per_epoch"] = 0  # as the master fills it in
    trial.run()
    assert begun == [0]


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_no_value_that_is_not_finite_is_reported(
    record: Record,
    small_experiment: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    figure: float,
) -> None:
    true = Evaluation.result

    def broken(self: Evaluation) -> dict[str, tf.Tensor]:
        return {**true(self), "nlpd": tf.constant(figure, tf.float64)}

    monkeypatch.setattr(Evaluation, "result", broken)
    trial = record(small_experiment, "trial")
    with pytest.raises(det.InvalidHP, match=r"val_nlpd is (nan|inf) after step 4"):
        trial.run()
    assert trial.reports["validation"] == {}


@pytest.mark.parametrize("on_cluster", [False, True])
def test_loss_that_is_not_finite_ends_the_trial_and_names_layer_and_cause(
    record: Record,
    small_experiment: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    on_cluster: bool,
) -> None:
    small_experiment["hyperparameters"]["adam"]["learning_rate"] = 1e300
    with pytest.raises(det.InvalidHP) as raised:
        record(small_experiment, "trial", on_cluster=on_cluster).run()
    assert "layer_" in raised.value.msg
    assert "hyperparameters.adam.learning_rate" in raised.value.msg
    # Only a cluster needs it in the log: Determined drops the message of an InvalidHP there.
    assert (raised.value.msg in caplog.text) is on_cluster


def test_tensorboard_files_lie_in_the_trials_folder(
    record: Record, small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(trial: RecordedTrial) -> list[Any]:
        return list((trial.run().folder / "tensorboard").glob("events.out.tfevents*"))

    assert files(record(small_experiment, "trial"))
    _without(monkeypatch, "_create_metric_writer")
    assert not files(record(small_experiment, "other"))
