"""An interrupted run equals an uninterrupted one, to the last bit."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest

from natdgp.checkpoint.training_state import AGGREGATED_NAME
from tests.integration.conftest import Bench, Watcher
from tests.integration.states import assert_same_run, reports


class Killed(Exception):
    """Ends a run as a kill does: nothing is saved."""


def die() -> None:
    raise Killed


# 8 is where a validation is due: the sequencer looks for preemption before it.
@pytest.mark.parametrize(
    ("number", "interrupted_at"),
    [
        (signal.SIGINT, 2),
        (signal.SIGTERM, 6),
        (signal.SIGTERM, 8),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in ((signal.SIGTERM, 2), (signal.SIGINT, 6), (signal.SIGINT, 8))
        ),
    ],
)
def test_resumed_run_equals_an_uninterrupted_one(
    bench: Bench, small_experiment: dict[str, Any], interrupted_at: int, number: signal.Signals
) -> None:
    small_experiment["hyperparameters"]["early_stopping"] = {"patience": 50}
    straight = bench.new(small_experiment, "straight")
    assert bench.go(straight).steps == 12

    broken = bench.new(small_experiment, "broken")
    outcome = bench.go(
        broken, Watcher(act_at=interrupted_at, act=lambda: os.kill(os.getpid(), number))
    )
    assert outcome.signal == number
    assert outcome.steps == interrupted_at
    assert broken.checkpoints()[-1].steps == interrupted_at
    assert bench.go(broken).steps == 12

    assert_same_run(straight, broken)


def test_a_run_interrupted_between_aggregated_batches_equals_an_uninterrupted_one(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    """After 4 batches of which 3 make a step, the gradients of the fourth are in the checkpoint."""
    small_experiment["optimizations"] = {"aggregation_frequency": 3}
    straight = bench.new(small_experiment, "straight")
    bench.go(straight)
    broken = bench.new(small_experiment, "broken")
    bench.go(broken, Watcher(act_at=4, act=lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert broken.checkpoints()[-1].steps == 4
    kept = np.load(broken.checkpoints()[-1].path / AGGREGATED_NAME)
    assert kept[-1] == 32  # examples
    bench.go(broken)
    assert_same_run(straight, broken)


def test_different_steps_and_seeds_differ(bench: Bench, small_experiment: dict[str, Any]) -> None:
    """The comparison above can fail."""
    one = bench.new(small_experiment, "one")
    bench.go(one)
    small_experiment["reproducibility"] = {"experiment_seed": 1}
    other = bench.new(small_experiment, "other")
    bench.go(other)
    with pytest.raises(AssertionError):
        assert_same_run(one, other)


def test_equal_seeds_give_equal_runs(bench: Bench, small_experiment: dict[str, Any]) -> None:
    folders = [bench.new(small_experiment, name) for name in ("one", "other")]
    for folder in folders:
        bench.go(folder)
    assert_same_run(*folders)


def test_journal_of_a_killed_run_forgets_the_steps_that_are_taken_again(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    small_experiment["checkpoint_policy"] = "all"
    straight = bench.new(small_experiment, "straight")
    bench.go(straight)

    broken = bench.new(small_experiment, "broken")
    with pytest.raises(Killed):
        bench.go(broken, Watcher(act_at=10, act=die))
    assert max(bench.metrics(broken, "training")) == 10
    assert broken.checkpoints()[-1].steps == 8
    bench.go(broken)
    assert_same_run(straight, broken)


def test_a_validation_that_no_checkpoint_holds_is_made_again(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    """Saved at 8 before the validation due there, validated when resumed, and killed after it."""
    hyperparameters = small_experiment["hyperparameters"]
    hyperparameters["early_stopping"] = {"patience": 3, "min_delta": 100.0}
    hyperparameters["adam"] = {"learning_rate": 0.01}
    hyperparameters["reduce_lr_on_plateau"] = {"patience": 1, "min_delta": 100.0, "factor": 0.1}
    straight = bench.new(small_experiment, "straight")
    bench.go(straight)

    broken = bench.new(small_experiment, "broken")
    bench.go(broken, Watcher(act_at=8, act=lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(Killed):
        bench.go(broken, Watcher(act_at=10, act=die))
    assert list(bench.metrics(broken, "validation")) == [4, 8]
    assert [checkpoint.steps for checkpoint in broken.checkpoints()] == [4, 8]
    assert bench.go(broken).completed
    assert_same_run(straight, broken)
    before = reports(broken)
    assert bench.go(broken).completed
    assert reports(broken) == before


def test_early_stopping_ends_the_trial_with_a_checkpoint(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    small_experiment["hyperparameters"]["early_stopping"] = {"patience": 1, "min_delta": 100.0}
    folder = bench.new(small_experiment)
    outcome = bench.go(folder)
    assert outcome.signal is None
    assert outcome.steps == 8
    assert folder.checkpoints()[-1].steps == 8


def test_a_run_that_early_stopping_ended_does_not_train_on(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    small_experiment["hyperparameters"]["early_stopping"] = {"patience": 1, "min_delta": 100.0}
    folder = bench.new(small_experiment)
    assert bench.go(folder).steps == 8
    before = reports(folder)
    outcome = bench.go(folder)
    assert (outcome.steps, outcome.completed) == (8, False)
    assert reports(folder) == before


def test_plateau_lowers_the_logged_learning_rate(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    hyperparameters = small_experiment["hyperparameters"]
    hyperparameters["adam"] = {"learning_rate": 0.01}
    hyperparameters["reduce_lr_on_plateau"] = {"patience": 1, "min_delta": 100.0, "factor": 0.1}
    folder = bench.new(small_experiment)
    bench.go(folder)
    rates = {s: m["learning_rate"] for s, m in bench.metrics(folder, "training").items()}
    assert rates[8] == pytest.approx(0.01)
    assert rates[10] == pytest.approx(0.001)


def test_schedules_are_logged_as_the_step_lengths_that_were_used(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    folder = bench.new(small_experiment)
    bench.go(folder)
    training = bench.metrics(folder, "training")
    # The report after n steps holds the lengths of step n - 1 (counted from 0).
    assert training[2]["gamma"] == pytest.approx(0.01 * 10 ** (1 / 8), rel=1e-12)
    assert training[12]["gamma"] == pytest.approx(0.1, rel=1e-12)
    # Adam's rate is a float32 in Keras.
    assert training[12]["learning_rate"] == pytest.approx(0.01 * 0.5**1.1, rel=1e-6)


def test_per_epoch_schedule_follows_records_per_epoch(
    bench: Bench, small_experiment: dict[str, Any]
) -> None:
    small_experiment["records_per_epoch"] = 4 * 32
    small_experiment["hyperparameters"]["adam"] = {
        "learning_rate": 0.01,
        "schedule": {"name": "per_epoch", "factor": 0.1},
    }
    folder = bench.new(small_experiment)
    bench.go(folder)
    rates = {s: m["learning_rate"] for s, m in bench.metrics(folder, "training").items()}
    assert [rates[s] for s in (4, 6, 12)] == pytest.approx([1e-2, 1e-3, 1e-4], rel=1e-6)
