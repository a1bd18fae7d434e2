"""What Determined's own tools make of a trial: its local test, and its export of checkpoints."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from determined import keras
from ruamel.yaml import YAML

import natdgp
from natdgp.checkpoint.record import ModelRecord
from natdgp.results.trained import TrainedModel
from tests.conftest import REPOSITORY
from tests.integration import own_trials
from tests.integration.conftest import Record

DET = Path(sys.executable).parent / "det"
FILE = REPOSITORY / "experiments" / "flights" / "const.yaml"
SHORTER = {
    "hyperparameters.global_batch_size": 64,
    "hyperparameters.model.inducing_points": 10,
    "hyperparameters.evaluation.num_samples": 2,
}


def _det(
    tmp_path: Path, *arguments: str, context: Path, **others: str
) -> subprocess.CompletedProcess[str]:
    own = {"entrypoint": "trials.deep_gp:DeepGPTrial", **others}
    overrides = {"data.rows": 500, **SHORTER, **own}
    configs = [
        each for path, value in overrides.items() for each in ("--config", f"{path}={value}")
    ]
    command: list[str | Path] = [DET, "experiment", "create", *arguments, *configs, FILE, context]
    return subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_shortening_applies() -> None:
    content: dict[str, Any] = YAML(typ="safe", pure=True).load(FILE)
    for path in SHORTER:
        functools.reduce(lambda group, name: group[name], path.split("."), content)


def test_the_local_test_of_the_flights_passes(tmp_path: Path) -> None:
    done = _det(tmp_path, "--local", "--test", context=REPOSITORY)
    assert done.returncode == 0, done.stderr
    for text in (
        "Finished training, metrics: [{'loss': ",
        "Finished validating, validation metrics: {'val_loss': ",
        "Finished saving a checkpoint.",
        "The test experiment passed.",
    ):
        assert text in done.stdout


def test_the_local_test_of_a_trial_that_raises_fails(tmp_path: Path) -> None:
    """The test above can fail."""
    context = tmp_path / "context"
    shutil.copytree(REPOSITORY / "trials", context / "trials")
    with (context / "trials" / "deep_gp.py").open("a") as file:
        file.write("\n    def build_model(self):\n        raise RuntimeError('mine')\n")
    done = _det(tmp_path, "--local", "--test", context=context)
    assert done.returncode != 0
    assert "RuntimeError: mine" in done.stderr
    assert "The test experiment passed." not in done.stdout


def test_the_local_test_of_a_stock_model_passes(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(own_trials.__file__, context)
    own = {"entrypoint": "own_trials:Stock", "searcher.metric": "val_loss"}
    done = _det(tmp_path, "--local", "--test", context=context, **own)
    assert done.returncode == 0, done.stderr
    assert "The test experiment passed." in done.stdout


def test_determined_loads_a_checkpoint_without_the_data(
    record: Record, small_experiment: dict[str, Any]
) -> None:
    small_experiment["searcher"]["max_length"] = {"batches": 4}
    checkpoint = record(small_experiment, "trial").run().checkpoint(4)
    Path(small_experiment["data"]["path"]).unlink()

    theirs = keras.load_model_from_checkpoint_path(str(checkpoint))
    ours = natdgp.load(checkpoint)
    for one, other in zip(theirs.deep_gp.variables, ours.model.deep_gp.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    X = np.random.default_rng(0).normal(size=(20, 3))
    one, other = TrainedModel(theirs, ModelRecord.read(checkpoint)).predict(X), ours.predict(X)
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.std, other.std)
    assert np.std(other.mean) > 0.1
