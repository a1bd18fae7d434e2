"""A trial of a user's own keeps what the engine promises; the library's needs nothing beside it."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import natdgp
from natdgp.data.prepare import Rows, prepare
from natdgp.run.run_folder import RunFolder
from natdgp.run.run_session import new_run, run_and_report
from natdgp.settings.experiment import read_experiment
from tests.integration.command import ENVIRONMENT, NATDGP
from tests.integration.conftest import Bench

Write = Callable[[dict[str, Any]], Path]

BUILDER = """
from natdgp.models.builder import build_deep_gp


def with_matern(settings, shape, seed, X=None):
    kernel = settings.model.kernel.model_copy(update={"name": "matern52"})
    model = settings.model.model_copy(update={"kernel": kernel})
    return build_deep_gp(model, shape, seed=seed, X=X)
"""

TRIAL = """
from pathlib import Path

from determined import keras

from builder_of_mine import with_matern
from natdgp.determined import DeepGPTrial
from natdgp.training.assembly import build_optimizers


class Notes(keras.callbacks.Callback):
    heard = ""

    def on_train_workload_begin(self, total_batches_trained, batches_requested, logs):
        self.heard += f"{total_batches_trained}+{batches_requested} "

    def on_train_workload_end(self, total_batches_trained, logs):
        assert "loss" in logs
        self.heard += f"={total_batches_trained} "

    def on_checkpoint_end(self, checkpoint_dir):
        Path(checkpoint_dir, "heard.txt").write_text(self.heard)


class Mine(DeepGPTrial):
    def build_model(self):
        task, settings = self.task, self.settings
        deep_gp = with_matern(settings, task.record.shape, task.seed, task.prepared.train.X)
        model = self.context.wrap_model(task.model(deep_gp))
        model.compile(build_optimizers(settings, model))
        return model

    def build_validation_data_loader(self):
        return super().build_validation_data_loader().take(1)

    def keras_callbacks(self):  # without those of super()
        return [keras.callbacks.TensorBoard(), Notes()]
"""

STOCK = """
import tensorflow as tf

from natdgp.determined import DeepGPTrial


class Stock(DeepGPTrial):
    def build_model(self):
        model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(1)])
        model = self.context.wrap_model(model)
        model.compile(self.context.wrap_optimizer(tf.keras.optimizers.Adam(0.1)), loss="mse")
        return model

    def build_training_data_loader(self):
        return super().build_training_data_loader().map(lambda b: (b["inputs"], b["targets"]))

    def build_validation_data_loader(self):
        return super().build_validation_data_loader().map(lambda b: (b["inputs"], b["targets"]))
"""


def _train(folder: RunFolder) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=200, highlight=False, markup=False, emoji=False)
    assert run_and_report(console, folder, live=False) == 0
    return screen.getvalue()


@pytest.fixture
def own(tmp_path: Path, small_experiment: dict[str, Any], write_experiment: Write) -> RunFolder:
    """A completed run of a trial that overrides all, with a module beside it."""
    (tmp_path / "builder_of_mine.py").write_text(BUILDER)
    (tmp_path / "trial_of_my_own.py").write_text(TRIAL)
    small_experiment["entrypoint"] = small_experiment["entrypoint"].replace(
        "trials.deep_gp:DeepGPTrial", "trial_of_my_own:Mine"
    )
    small_experiment["hyperparameters"]["early_stopping"] = {"patience": 1, "min_delta": 100.0}
    folder = new_run(
        read_experiment(write_experiment(small_experiment)), tmp_path, tmp_path / "run"
    )
    assert "(early stopping)" in _train(folder)
    return folder


@pytest.mark.filterwarnings("ignore:det.keras.callbacks.TensorBoard has been:FutureWarning")
def test_a_trial_that_overrides_all_keeps_what_the_settings_ask_for_and_is_reported_as_trained(
    own: RunFolder, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The modules beside it came along; early stopping and the ramp of gamma were at work.
    assert {path.name for path in own.code.glob("*.py")} >= {
        "builder_of_mine.py",
        "trial_of_my_own.py",
    }
    summary = json.loads(own.summary.read_text())
    assert summary["steps"] == 8
    gammas = [m["gamma"] for m in bench.metrics(own, "training").values()]
    assert gammas == pytest.approx([0.01 * 10 ** (step / 8) for step in (1, 3, 5, 7)], rel=1e-12)

    # TensorBoard's callback wrote into the run's folder.
    for part in ("train", "validation"):
        assert list(own.tensorboard.glob(f"{part}/events.out.tfevents*"))

    # Determined's own hooks were heard, and a checkpoint keeps what they write into it.
    heard = sorted(own.root.glob("checkpoints/*/heard.txt"))[-1].read_text()
    assert heard == "0+2 =2 2+2 =4 4+2 =6 6+2 =8 "

    # Another kernel with the same variables is not taken for the one of the settings.
    with pytest.raises(ValueError, match=r"build=.*\n.*kernel.*SquaredExponential.*Matern52"):
        natdgp.load(own.root)
    monkeypatch.syspath_prepend(str(own.code))
    build = importlib.import_module("builder_of_mine").with_matern
    model = natdgp.load(own.root, build=build)

    # The figures are those of the model that was trained, on the data it was validated on.
    settings = model.record.settings
    prepared = prepare(settings.data, settings.model.dtype)
    validation = Rows(prepared.validation.X[:16], prepared.validation.Y[:16])
    for part, rows in (("test", prepared.test), ("val", validation)):
        for name, value in model.evaluate_rows(rows).items():
            assert summary[f"{part}_{name}"] == pytest.approx(value, rel=1e-9), f"{part}_{name}"
    whole = model.evaluate_rows(prepared.validation)
    assert summary["val_nlpd"] != pytest.approx(whole["nlpd"], rel=1e-3)


@pytest.mark.filterwarnings("ignore:non-integer arguments to randrange:DeprecationWarning")
def test_a_stock_keras_model_trains_to_its_end_and_is_told_apart(
    tmp_path: Path, small_experiment: dict[str, Any], write_experiment: Write
) -> None:
    (tmp_path / "stock_trial.py").write_text(STOCK)
    small_experiment["entrypoint"] = small_experiment["entrypoint"].replace(
        "trials.deep_gp:DeepGPTrial", "stock_trial:Stock"
    )
    small_experiment["searcher"]["metric"] = "val_loss"
    experiment = read_experiment(write_experiment(small_experiment))
    folder = new_run(experiment, tmp_path, tmp_path / "run")
    assert "There are no test figures: build_model made a Sequential" in _train(folder)
    summary = json.loads(folder.summary.read_text())
    assert (summary["steps"], summary.keys() & {"val_loss", "test_nlpd"}) == (12, {"val_loss"})
    assert "There is nothing left to train" in _train(folder)
    with pytest.raises(ValueError, match="is of a Sequential, and not of a deep GP of natdgp's"):
        natdgp.load(folder.root)


def test_the_librarys_trial_needs_neither_a_trials_folder_nor_determined(
    tmp_path: Path, small_experiment: dict[str, Any], write_experiment: Write
) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text(
        "import sys\nsys.modules['determined'] = None\n"
    )
    path = f"{tmp_path / 'without'}:{os.environ.get('PYTHONPATH', '')}"
    small_experiment["entrypoint"] = small_experiment["entrypoint"].replace(
        "trials.deep_gp", "natdgp.determined"
    )
    small_experiment["hyperparameters"]["model"]["layers"] = 1
    small_experiment["searcher"]["max_length"] = {"batches": 4}
    file = write_experiment(small_experiment)
    done = subprocess.run(
        [sys.executable, NATDGP, "train", file, "--out", "run"],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    run = RunFolder.open(tmp_path / "run")
    assert run.summary.is_file()
    assert list(run.code.iterdir()) == []
    assert natdgp.load(run.root).predict([[0.0, 0.0, 0.0]]).mean.shape == (1, 1)
