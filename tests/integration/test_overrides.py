"""A trial that builds another model trains, is reported and goes on, here and under Determined."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import determined as det
import numpy as np
import pytest
from rich.console import Console

from natdgp.checkpoint.checksums import verify_checksums
from natdgp.checkpoint.training_state import read_state
from natdgp.determined.context import DeepGPContext
from natdgp.run.local_training import train
from natdgp.run.run_session import new_run, run_and_report
from natdgp.settings.experiment import read_experiment
from tests.integration import own_trials
from tests.integration.conftest import Record, Watcher
from tests.integration.states import variables

Write = Callable[[dict[str, Any]], Path]

JUDGES = {
    own_trials.OtherLayers: "val_nlpd",
    own_trials.Wrapped: "val_loss",
    own_trials.Stock: "val_loss",
    own_trials.GPfluxsNaturalGradients: "val_loss",
}
"""What each trial's model is judged by."""


def _each(*trials: type) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("trial_class", trials, ids=lambda one: one.__name__)


@pytest.fixture
def experiment(small_experiment: dict[str, Any], trial_class: Any) -> dict[str, Any]:
    small_experiment["entrypoint"] = small_experiment["entrypoint"].replace(
        "trials.deep_gp:DeepGPTrial", f"own_trials:{trial_class.__name__}"
    )
    small_experiment["searcher"] |= {"metric": JUDGES[trial_class], "max_length": {"batches": 4}}
    small_experiment["min_validation_period"] = {"batches": 2}
    return small_experiment


# natdgp's own model, whose figures there are, is in test_trials.py.
@_each(own_trials.Wrapped, own_trials.Stock, own_trials.GPfluxsNaturalGradients)
def test_it_trains_to_its_report_and_goes_on_after_an_interruption(
    trial_class: type, experiment: dict[str, Any], write_experiment: Write, tmp_path: Path
) -> None:
    shutil.copy(own_trials.__file__, tmp_path)
    folder = new_run(read_experiment(write_experiment(experiment)), tmp_path, tmp_path / "run")
    interrupt = Watcher(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    outcome = train(read_experiment(folder.config), folder, interrupt)
    assert (outcome.steps, outcome.completed) == (2, False)

    screen = io.StringIO()
    assert run_and_report(Console(file=screen, width=200), folder, live=False) == 0
    summary = json.loads(folder.summary.read_text())
    assert summary["steps"] == 4
    assert not [name for name in summary if name.startswith("test_")]
    assert f"build_model made a {type(outcome.model).__name__}" in screen.getvalue()
    two, four = (variables(folder.checkpoint(steps).path) for steps in (2, 4))
    assert _moved(two, four)


@_each(*JUDGES)
def test_determineds_controller_trains_it_and_goes_on_after_a_pause(
    trial_class: Any, experiment: dict[str, Any], record: Record
) -> None:
    trial = record(experiment, "trial", trial_class=trial_class, preempt_at=2).run()
    assert trial.saved == [2]
    trial.run()
    assert trial.saved[-1] == 4
    assert sorted(trial.reports["training"]) == sorted(trial.reports["validation"]) == [2, 4]
    assert all(trial.metric in one for one in trial.reports["validation"].values())
    for steps in (2, 4):
        verify_checksums(trial.checkpoint(steps))
        assert "callbacks" in read_state(trial.checkpoint(steps))
    assert _moved(*(variables(trial.checkpoint(steps)) for steps in (2, 4)))


def _moved(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether q(u) and the optimizers' variables went on, and all have their places still."""
    moved = {name for name, value in before.items() if np.any(after[name] != value)}
    return (
        before.keys() == after.keys()
        and any("q_mu" in name for name in moved)
        and any("iteration" in name for name in moved)
    )


@_each(own_trials.GPfluxsNaturalGradients)
def test_gpfluxs_natural_gradients_are_refused_on_two_slots(
    trial_class: Any, experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = DeepGPContext.from_config(experiment)
    monkeypatch.setattr(context, "distributed", SimpleNamespace(size=2, rank=0))
    monkeypatch.setattr(DeepGPContext, "reducer", property(lambda _: None))
    with pytest.raises(det.InvalidHP, match="natdgp's class of the same name, or one slot"):
        trial_class(context).build_model()
