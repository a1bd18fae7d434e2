"""What goes wrong when GPflux and Determined meet as they are, and that here it does not.

Each trap is shown with the stack's own class first, so that a test fails if the mend is removed
and says so if the stack has mended itself.
"""

from __future__ import annotations

from typing import Any, ClassVar

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
from natdgp.determined.callbacks import EarlyStopping
from natdgp.training.predictive import PredictiveSums

from natdgp.determined import DeepGPTrial
from natdgp.determined.controller import DeepGPController
from natdgp.natgrad.parameters import packed_triangle
from natdgp.natgrad.safeguards import SafeStep
from natdgp.run import local_training as local_run
from natdgp.training import builder as training_builder
from tests.conftest import FloatArray
from tests.integration.conftest import Bench


def _with_stock_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeepGPTrial, "trial_controller_class", keras.TFKerasTrialController)


def _without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Give the controller Determined's own method back."""
    monkeypatch.setattr(DeepGPController, name, getattr(keras.TFKerasTrialController, name))


def test_determineds_checkpoint_of_optimizers_crashes_on_variables_that_share_names(
    bench: Bench, small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, "_save_checkpoint")
    with pytest.raises(ValueError, match="name already exists"):
        bench.go(bench.new(small_experiment))


def test_checkpoint_restores_adams_moments_gamma_and_step_exactly(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    folder = bench.new(small_experiment)
    bench.go(folder)
    saved = folder.checkpoints()[-1].path / "determined-keras-model-weights"
    names = [name for name, _ in tf.train.list_variables(str(saved))]
    assert any("_all_optimizers/0/gamma" in name for name in names)
    assert any(name.startswith("step/") for name in names)
    moments = [n for n in names if "_all_optimizers/1/_variables" in n and n.count("/") == 5]
    values = [tf.train.load_variable(str(saved), name) for name in moments]
    assert len(values) > 10
    assert any(np.any(value != 0) for value in values)


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


def test_validation_loss_is_the_negative_elbo(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    folder = bench.new(small_experiment)
    bench.go(folder)
    losses = [m["val_loss"] for m in bench.metrics(folder, "validation").values()]
    assert len(losses) == 3
    assert all(loss != 0 for loss in losses)
    assert len(set(losses)) == 3


def test_determineds_early_stopping_forgets_its_best_value_and_ours_does_not() -> None:
    for cls, remembers in ((determined_callbacks.EarlyStopping, False), (EarlyStopping, True)):
        before = cls(monitor="val_nlpd", patience=2)
        before.set_model(tf.keras.Model())
        before.on_train_begin()
        before.on_test_end({"val_nlpd": 1.5})
        after = cls(monitor="val_nlpd", patience=2)
        after.set_model(tf.keras.Model())
        after.on_train_begin()
        after.load_state(before.get_state())
        assert (after.best == 1.5) is remembers


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


@pytest.fixture
def adapted_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    def training(self: DeepGPTrial) -> Any:
        rows = self.prepared.train
        return keras.SequenceAdapter(_Constant(rows.X, rows.Y, 32), workers=1)

    def validation(self: DeepGPTrial) -> Any:
        rows = self.prepared.validation
        return keras.SequenceAdapter(_Constant(rows.X, rows.Y, 15))

    monkeypatch.setattr(DeepGPTrial, "build_training_data_loader", training)
    monkeypatch.setattr(DeepGPTrial, "build_validation_data_loader", validation)


@pytest.mark.usefixtures("adapted_sequences")
def test_sequence_adapters_work(bench: Bench, small_experiment: dict[str, Any]) -> None:
    folder = bench.new(small_experiment)
    assert bench.go(folder).steps == 12


@pytest.mark.usefixtures("adapted_sequences")
def test_determineds_sequence_adapter_needs_a_method_that_does_not_exist(
    bench: Bench, small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_stock_controller(monkeypatch)
    with pytest.raises(AttributeError, match="_configure_fit"):
        bench.go(bench.new(small_experiment))


def test_epochs_of_no_records_do_not_end_after_every_batch(
    bench: Bench, small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []

    class CountsEpochs(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            ends.append(epoch)

    monkeypatch.setattr(DeepGPTrial, "keras_callbacks", lambda self: [CountsEpochs()])
    folder = bench.new(small_experiment)
    environment = local_run._environment

    def as_the_master_fills_it(*args: Any) -> Any:
        env = environment(*args)
        env.experiment_config["records_per_epoch"] = 0
        return env

    monkeypatch.setattr(local_run, "_environment", as_the_master_fills_it)
    bench.go(folder)
    assert ends == [0]


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_no_value_that_is_not_finite_is_reported(
    bench: Bench,
    small_experiment: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    figure: float,
) -> None:
    true = PredictiveSums.result

    def broken(self: PredictiveSums) -> dict[str, tf.Tensor]:
        return {**true(self), "nlpd": tf.constant(figure, tf.float64)}

    monkeypatch.setattr(PredictiveSums, "result", broken)
    folder = bench.new(small_experiment)
    with pytest.raises(det.InvalidHP, match=r"val_nlpd is (nan|inf) after step 4"):
        bench.go(folder)
    assert bench.metrics(folder, "validation") == {}


@pytest.mark.parametrize("on_cluster", [False, True])
def test_loss_that_is_not_finite_ends_the_trial_and_names_layer_and_cause(
    bench: Bench,
    small_experiment: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    on_cluster: bool,
) -> None:
    environment = local_run._environment

    def somewhere(*args: Any) -> Any:
        env = environment(*args)
        env.on_cluster = on_cluster
        return env

    monkeypatch.setattr(local_run, "_environment", somewhere)
    small_experiment["hyperparameters"]["adam"]["learning_rate"] = 1e300
    with pytest.raises(det.InvalidHP) as raised:
        bench.go(bench.new(small_experiment))
    assert "layer_" in raised.value.msg
    assert "hyperparameters.adam.learning_rate" in raised.value.msg
    # Only a cluster needs it in the log: Determined drops the message of an InvalidHP there.
    assert (raised.value.msg in caplog.text) is on_cluster


def test_a_step_that_would_leave_the_cone_is_corrected_and_counted(
    bench: Bench, small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hyperparameters = small_experiment["hyperparameters"]
    hyperparameters["model"]["likelihood"] = {"name": "student_t", "scale": 0.02}
    hyperparameters["natural_gradient"] = {
        "layers": "all",
        "gamma": 5.0,
        "positive_definite": "fallback",
    }
    folder = bench.new(small_experiment)
    assert bench.go(folder).steps == 12
    last = bench.metrics(folder, "training")[12]
    assert last["natgrad_corrected"] + last["natgrad_shortened"] > 0
    assert last["natgrad_refused"] == 0

    # GPflow's optimizer, on the same model, does not survive it.
    monkeypatch.setattr(training_builder, "NaturalGradient", _GPflows)
    with pytest.raises((det.InvalidHP, tf.errors.InvalidArgumentError)):
        bench.go(bench.new(small_experiment, "gpflow"))


class _GPflows(gpflow.optimizers.NaturalGradient):
    """GPflow's step behind the methods that our model calls."""

    counts: ClassVar[dict[str, tf.Tensor]] = {}

    def __init__(self, gamma: tf.Variable, **_: Any) -> None:  # it has no safeguards to choose
        super().__init__(gamma)

    def propose(self, q_mu: Any, q_sqrt: Any, q_mu_grad: Any, q_sqrt_grad: Any) -> SafeStep:
        self._gradients = (q_mu_grad, packed_triangle(q_sqrt_grad))
        none = tf.zeros(tf.shape(q_mu)[1:], tf.bool)
        return SafeStep(q_mu, q_sqrt, none, none, none, tf.ones_like(q_mu[0]))

    def adopt(self, q_mu: gpflow.Parameter, q_sqrt: gpflow.Parameter, *_: Any) -> None:
        self._natgrad_apply_gradients(*self._gradients, q_mu, q_sqrt)


def test_tensorboard_files_lie_in_the_runs_folder(
    bench: Bench, small_experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bench.new(small_experiment)
    bench.go(folder)
    assert list(folder.tensorboard.glob("events.out.tfevents*"))

    _without(monkeypatch, "_create_metric_writer")
    other = bench.new(small_experiment, "other")
    bench.go(other)
    assert not list(other.tensorboard.glob("events.out.tfevents*"))
