"""When a run trains, validates, saves and ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.settings.schema import Settings
from natdgp.training.callbacks import build_callbacks
from natdgp.training.diagnosis import BadBatch, TrainingFailure
from natdgp.training.loop import Ending, Loop, Plan
from natdgp.training.model import DeepGPModel
from tests.unit.training.ranks import together
from tests.unit.training.small_models import (
    B,
    all_equal,
    batch_of,
    small_deep_gp,
    small_model,
    state,
)


class Notes:
    """A driver that notes what it hears, and wants the run to end at a step."""

    def __init__(self, end_at: int | None = None) -> None:
        self.heard: list[str] = []
        self.saved: dict[int, dict[str, Any]] = {}
        self.metrics: dict[str, dict[str, float]] = {}
        self._step, self._end_at = 0, end_at

    def status(self, status: str) -> None:
        pass

    def training(self, step: int, metrics: Mapping[str, float]) -> None:
        self._note("train", step, metrics)

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._note("validate", step, metrics)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        self._note("save", step, {})
        self.saved[step] = json.loads(json.dumps(state))  # plain values

    def wants_to_end(self) -> bool:
        return self._end_at is not None and self._step >= self._end_at

    def _note(self, what: str, step: int, metrics: Mapping[str, float]) -> None:
        self._step = step
        self.heard.append(f"{what} {step}")
        self.metrics[self.heard[-1]] = dict(metrics)


class StandIn(tf.keras.Model):
    """A model whose loss is the batch, and whose validation figure is looked up by the step."""

    def __init__(self, figures: Mapping[int, float] = {}) -> None:
        super().__init__()
        self.figures, self.reducer = figures, OneProcess()
        self.optimizer = tf.keras.optimizers.SGD(0.1)  # which a diagnosis looks at
        self.step = tf.Variable(0, dtype=tf.int64)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        self.step.assign_add(1)
        return {"loss": data["x"]}

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        def figure(step: Any) -> np.float64:
            return np.float64(self.figures.get(int(step), 1.0))

        return {"nlpd": tf.numpy_function(figure, [self.step], tf.float64)}


def _numbers(start: int = 0) -> tf.data.Dataset:
    return tf.data.Dataset.range(start, 1000).map(lambda x: {"x": tf.cast(x, tf.float64)})


def _loop(driver: Notes, model: Any = None, callbacks: Any = (), **plan: Any) -> Loop:
    plan = {"length": 10, "report_every": 4, **plan}
    model = StandIn() if model is None else model
    return Loop(model, _numbers, _numbers().take(1), Plan(**plan), driver, callbacks)


ORDERS: dict[str, tuple[dict[str, Any], str]] = {
    # Worked out by hand from the code of Determined's sequencer.
    "nothing asked for": ({}, "train 4, train 8, train 10, save 10, validate 10"),
    "validations, the best saved": (
        {"validate_every": 3},
        "train 3, validate 3, save 3, train 6, validate 6, train 9, validate 9, save 9, train 10, "
        "save 10, validate 10",
    ),
    "validations, all saved": (
        {"validate_every": 5, "save_policy": "all"},
        "train 4, train 5, validate 5, save 5, train 9, train 10, validate 10, save 10",
    ),
    "validations, none saved": (
        {"validate_every": 5, "save_policy": "none"},
        "train 4, train 5, validate 5, train 9, train 10, validate 10, save 10",
    ),
    "checkpoints by number": (
        {"save_every": 6, "validate_every": 4, "save_policy": "none"},
        "train 4, validate 4, train 6, save 6, train 8, validate 8, train 10, save 10, validate 10",
    ),
    "validations, the largest saved": (
        {"validate_every": 3, "smaller_is_better": False},
        "train 3, validate 3, save 3, train 6, validate 6, save 6, train 9, validate 9, train 10, "
        "save 10, validate 10",
    ),
    "a validation first": (
        {"validates_first": True, "length": 4},
        "validate 0, train 4, save 4, validate 4",
    ),
    "both at once": (
        {"save_every": 5, "validate_every": 5, "length": 5, "save_policy": "none"},
        "train 4, train 5, validate 5, save 5",
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_is_that_of_determineds_sequencer(name: str) -> None:
    plan, expected = ORDERS[name]
    driver = Notes()
    ending = _loop(driver, StandIn({3: 0.5, 6: 0.7, 9: 0.4}), **plan).run()
    assert ", ".join(driver.heard) == expected
    assert ending == Ending(plan.get("length", 10), "completed")


def test_reports_hold_the_last_steps_figures_and_where_they_stand() -> None:
    driver = Notes()
    _loop(driver, steps_per_epoch=3).run()
    assert driver.metrics["train 8"] == {"loss": 7.0, "batches": 8.0, "epochs": 2.0}
    assert driver.metrics["validate 10"] == {"val_nlpd": 1.0, "batches": 10.0, "epochs": 3.0}


# --- interruption -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end_at", "first", "then"),
    [
        # Heard after a report: a validation that is due waits for the next session.
        (3, "train 3, save 3", "validate 3, train 6, validate 6"),
        (4, "train 3, validate 3, save 3, train 6, save 6", "validate 6"),
        (0, "", "train 3, validate 3, save 3, train 6, validate 6"),
    ],
)
def test_an_interrupted_run_goes_on_where_it_stood(end_at: int, first: str, then: str) -> None:
    plan = {"length": 6, "validate_every": 3}
    driver = Notes(end_at)
    ending = _loop(driver, **plan).run()
    assert ending.reason == "interrupted"
    assert ", ".join(driver.heard) == first
    again = Notes()
    loop = _loop(again, **plan)
    if driver.saved:
        loop.restore(driver.saved[ending.step])
    assert loop.run() == Ending(6, "completed")
    assert ", ".join(again.heard).startswith(then)
    assert again.metrics.get("train 6", {"loss": 5.0})["loss"] == 5.0


SETTINGS = Settings.read(
    {
        "global_batch_size": B,
        "natural_gradient": {"layers": "all", "gamma": 0.2, "gamma_initial": 0.01, "ramp_steps": 8},
        "reduce_lr_on_plateau": {"patience": 1, "factor": 0.5, "min_delta": 9.0},
        "early_stopping": {"patience": 5, "min_delta": 9.0},
    },
    {"source": "flights"},
)


def _trains(driver: Notes, model: DeepGPModel, **plan: Any) -> Loop:
    """A run of the small model, with a ramp, a plateau and early stopping."""

    def data(start: int) -> tf.data.Dataset:
        batches = [batch_of(range(t * B, (t + 1) * B)) for t in range(start, 16)]
        stacked = {name: tf.stack([one[name] for one in batches]) for name in batches[0]}
        return tf.data.Dataset.from_tensor_slices(stacked)

    validation = tf.data.Dataset.from_tensors(batch_of(range(7)))
    plan = {"length": 16, "report_every": 3, "validate_every": 2, **plan}
    return Loop(model, data, validation, Plan(**plan), driver, build_callbacks(SETTINGS, None))


def test_resumed_equals_uninterrupted_to_the_last_bit(tmp_path: Path) -> None:
    straight, once, again = (small_model() for _ in range(3))
    driver, first, second = Notes(), Notes(end_at=4), Notes()
    ending = _trains(driver, straight, save_policy="none").run()
    # The first validation is the best for ever: five more end the run.
    assert ending == Ending(12, "stopped")
    assert float(straight.optimizer.learning_rate) == pytest.approx(0.01 / 2**5, rel=1e-6)

    stopped = _trains(first, once, save_policy="none").run()
    assert stopped == Ending(4, "interrupted")
    once.save_weights(str(tmp_path / "weights"))
    again.load_weights(str(tmp_path / "weights")).assert_consumed()
    loop = _trains(second, again, save_policy="none")
    loop.restore(first.saved[4])
    assert loop.run() == ending
    assert all_equal(state(straight), state(again))
    both = {**first.metrics, **second.metrics}
    assert {name: both[name] for name in driver.metrics} == driver.metrics
    assert driver.saved[12] == second.saved[12]

    rest = Notes()
    over = _trains(rest, again)
    over.restore(second.saved[12])
    assert over.run() == Ending(12, "stopped")
    assert rest.heard == []


# --- callbacks --------------------------------------------------------------------------------


class Listener(tf.keras.callbacks.Callback):
    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.heard: list[str] = []
        self._stop_at = stop_at

    def on_train_begin(self, logs: Any = None) -> None:
        self.heard.append("begin")

    def on_train_end(self, logs: Any = None) -> None:
        self.heard.append("end")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.heard.append(f"epoch {epoch}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.heard.append(f"epoch {epoch} over")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.heard.append(f"batch {batch}")
        self.model.stop_training = int(self.model.step) == self._stop_at

    def on_test_end(self, logs: Any = None) -> None:
        self.heard.append(f"test {logs['val_nlpd']}")


def test_callbacks_hear_of_batches_epochs_and_validations() -> None:
    listener = Listener()
    _loop(Notes(), callbacks=[listener], length=5, validate_every=4, steps_per_epoch=2).run()
    assert ", ".join(listener.heard) == (
        "begin, epoch 0, batch 0, batch 1, epoch 0 over, epoch 1, batch 0, batch 1, epoch 1 over, "
        "test 1.0, epoch 2, batch 0, test 1.0, end"
    )


def test_a_callback_ends_the_run_after_a_report() -> None:
    driver = Notes()
    ending = _loop(driver, callbacks=[Listener(stop_at=4)], validate_every=2).run()
    assert ending == Ending(4, "stopped")
    assert driver.heard == ["train 2", "validate 2", "save 2", "train 4", "save 4"]


# --- breakdowns -------------------------------------------------------------------------------


def test_figures_that_are_not_finite_end_the_run_in_words() -> None:
    model = small_model()
    model.deep_gp.f_layers[0].q_mu.unconstrained_variable.assign(np.full([5, 2], np.nan))
    with pytest.raises(TrainingFailure, match=r"loss is nan in the step after step 0: layer_0 has"):
        _trains(Notes(), model).run()
    driver = Notes()
    with pytest.raises(TrainingFailure, match=r"val_nlpd is inf after step 4.*all parameters are"):
        _loop(driver, StandIn({4: np.inf}), validate_every=4).run()
    assert driver.heard == ["train 4"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_bad_data_are_to_blame_on_every_rank(ranks: int) -> None:
    def train(reducer: Reducer) -> str:
        model = small_model((1,), deep_gp=small_deep_gp(2), reducer=reducer)
        batch = batch_of(range(6))
        if reducer.rank == reducer.size - 1:
            batch["inputs"] = tf.where(tf.range(6)[:, None] == 2, np.nan, batch["inputs"])
        data = tf.data.Dataset.from_tensors(batch).repeat()
        loop = Loop(model, lambda start: data, data.take(1), Plan(length=3), Notes())
        loop._train_step = lambda iterator: model.train_step(next(iterator))  # threads: eagerly
        with pytest.raises(BadBatch) as raised:
            loop.run()
        return str(raised.value)

    found = together(ranks, train)
    assert len(set(found)) == 1
    assert (
        "loss is nan in the step after step 0: the training data gave a batch with in" in found[0]
    )


def test_an_unnamed_judge_is_no_surprise_at_the_end() -> None:
    with pytest.raises((TrainingFailure, KeyError), match="val_crps"):
        _loop(Notes(), judge="val_crps", validate_every=2).run()


def test_ranks_end_and_save_together() -> None:
    def train(reducer: Reducer) -> tuple[Ending, list[str]]:
        model: Any = StandIn()
        model.reducer = reducer
        driver = Notes(4 if reducer.rank == 0 else 0)  # rank 0 alone is asked
        return _loop(driver, model).run(), [one for one in driver.heard if "save" in one]

    assert together(2, train) == [
        (Ending(4, "interrupted"), ["save 4"]),
        (Ending(4, "interrupted"), []),
    ]
