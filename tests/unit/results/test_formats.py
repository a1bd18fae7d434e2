"""Checkpoints of every format there has been, as they were written, still predict and train on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natdgp.checkpoint.checksums import RECORD_NAME
from natdgp.checkpoint.record import FORMAT
from natdgp.results.trained import load
from natdgp.run.journal import TRAINING
from tests.conftest import REPOSITORY
from tests.integration.conftest import Bench
from tests.integration.states import assert_same_checkpoint

CHECKPOINTS = REPOSITORY / "tests" / "fixtures" / "checkpoints"


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_an_old_checkpoint_predicts_what_it_did(number: int) -> None:
    checkpoint = CHECKPOINTS / f"format-{number}"
    assert json.loads((checkpoint / RECORD_NAME).read_text())["format"] == number
    recorded = json.loads(Path(f"{checkpoint}.json").read_text())
    prediction = load(checkpoint).predict(recorded["inputs"])
    # 1e-9: the order of summation of another machine, through a Cholesky factor
    np.testing.assert_allclose(prediction.mean, recorded["mean"], rtol=1e-9)
    np.testing.assert_allclose(prediction.std, recorded["std"], rtol=1e-9)
    for level, values in recorded["quantiles"].items():
        np.testing.assert_allclose(prediction.quantiles[float(level)], values, rtol=1e-9)


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_a_run_goes_on_from_an_old_checkpoint(
    number: int, tmp_path: Path, write_experiment: Callable[[dict[str, Any]], Path]
) -> None:
    checkpoint = CHECKPOINTS / f"format-{number}"
    config = json.loads((checkpoint / "load_data.json").read_text())["experiment_config"]
    del config["data"]["prepared_task"]  # put there by the trial
    config["data"]["path"] = str(checkpoint / "code" / "waves.csv")
    begun = json.loads((checkpoint / "metadata.json").read_text())["steps_completed"]
    config["searcher"]["max_length"] = {"batches": begun + 4}
    bench = Bench(tmp_path, write_experiment)
    straight, resumed = bench.new(config, "straight"), bench.new(config, "resumed")
    shutil.copytree(checkpoint, resumed.checkpoint(begun).path)
    for run in (straight, resumed):
        assert bench.go(run).steps == begun + 4
    assert min(bench.metrics(resumed, TRAINING)) > begun
    ends = (run.checkpoint(begun + 4).path for run in (straight, resumed))
    assert_same_checkpoint(*ends, rtol=1e-6)  # another machine, as above, and four steps more
