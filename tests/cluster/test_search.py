"""Trials with hyperparameters as a search samples them, in Determined's launcher and harness.

The master that samples and judges is not at hand; what it hands to a trial is.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from natdgp.settings.space import read_space
from tests.cluster.container import run_trial
from tests.cluster.flights import short_search
from tests.cluster.image import Image
from tests.cluster.master import StandInMaster, steps


def _sampled(config: dict[str, Any]) -> dict[str, Any]:
    """A point of the space that is quick to train, through JSON as the master sends it."""
    space, _ = read_space(config["hyperparameters"])
    point = next(
        point
        for seed in range(1000)
        if (point := space.sample(Random(seed)))["model"]["layers"] == 2
    )
    return dict(json.loads(json.dumps(point)))


@pytest.mark.slow  # other trials run in test_one_slot.py
def test_a_sampled_trial_reports_what_an_adaptive_searcher_reads(
    image: Image, context: str, storage: Path, tmp_path: Path
) -> None:
    config = short_search(storage)
    hparams = _sampled(config)
    space, _ = read_space(config["hyperparameters"])
    assert space.domains["adam", "learning_rate"].type == "log"
    assert 10**-2.5 <= hparams["adam"]["learning_rate"] <= 0.1, "a value, no exponent"
    with StandInMaster(config, context) as master:
        task = run_trial(image, master, tmp_path / "task", hparams=hparams)
    assert task.exit_code == 0, task.log
    assert not master.early_exits
    assert not master.unknown
    assert steps(master, "validation") == [5, 10, 15, 20]
    reports = [report.metrics for report in master.reported("validation")]
    assert [report["batches"] for report in reports] == [5, 10, 15, 20], "the time metric"
    assert all("val_nlpd" in report for report in reports)
