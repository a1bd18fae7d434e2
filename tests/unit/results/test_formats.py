"""Checkpoints of every format there has been, as they were written, still predict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natdgp.checkpoint.checksums import RECORD_NAME
from natdgp.checkpoint.record import FORMAT
from natdgp.data.table import DataError
from natdgp.results.trained import load
from natdgp.run.journal import TRAINING
from tests.conftest import REPOSITORY
from tests.integration.conftest import Bench
from tests.integration.states import assert_same_checkpoint

CHECKPOINTS = REPOSITORY / "tests" / "fixtures" / "checkpoints"
BEGUN = 6
"""Steps behind each."""


# What format 1 predicts was recorded anew when predictions became functions of the row: before, the
# Monte-Carlo samples of an inner layer hung on a row's place, and now all rows share points of one
# Sobol sequence. The parameters are those that were written.
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


@pytest.fixture
def config() -> dict[str, Any]:
    """The run that all of them are of, four steps longer."""
    saved = json.loads((CHECKPOINTS / "format-1" / "load_data.json").read_text())
    config: dict[str, Any] = saved["experiment_config"]
    data = CHECKPOINTS / "format-1" / "code" / "waves.csv"
    config["data"] = {"source": "csv", "path": str(data), "target": ["y"]}
    config["searcher"]["max_length"] = {"batches": BEGUN + 4}
    return config


@pytest.mark.parametrize("number", range(2, FORMAT + 1))
def test_a_run_goes_on_from_an_old_checkpoint(
    number: int, bench: Bench, config: dict[str, Any]
) -> None:
    straight, resumed = bench.new(config, "straight"), bench.new(config, "resumed")
    shutil.copytree(CHECKPOINTS / f"format-{number}", resumed.checkpoint(BEGUN).path)
    for run in (straight, resumed):
        assert bench.go(run).steps == BEGUN + 4
    assert min(bench.metrics(resumed, TRAINING)) > BEGUN
    ends = (run.checkpoint(BEGUN + 4).path for run in (straight, resumed))
    assert_same_checkpoint(*ends, rtol=1e-6)  # another machine, as above, and four steps more


def test_a_run_that_kept_its_state_in_pickles_is_refused(
    bench: Bench, config: dict[str, Any]
) -> None:
    folder = bench.new(config)
    shutil.copytree(CHECKPOINTS / "format-1", folder.checkpoint(BEGUN).path)
    with pytest.raises(DataError, match=r"an older natdgp .*: it predicts, but trains no further"):
        bench.go(folder)
