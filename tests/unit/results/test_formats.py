"""Checkpoints of every format there has been, as they were written, still load and predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from natdgp.models.record import FORMAT
from natdgp.models.seal import RECORD_NAME
from natdgp.results import load
from tests.conftest import REPOSITORY

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
