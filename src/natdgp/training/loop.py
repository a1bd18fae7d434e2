"""The loop: when a run trains, validates, saves and ends. It knows no driver."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import tensorflow as tf

from natdgp.data.inspection import Inspection
from natdgp.data.pipeline import with_names
from natdgp.distributed.reducer import (
    OneProcess,
    Reducer,
    first_text,
    gather_on_first_rank,
)
from natdgp.training.callbacks import EarlyStopping, load_states, states_of
from natdgp.training.diagnosis import (
    BadBatch,
    TrainingFailure,
    explain_breakdown,
    explain_failure,
)
from natdgp.training.drift import check_drift
from natdgp.training.evaluation import evaluation_step
from natdgp.training.heartbeat_callback import HeartbeatCallback

Metrics = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """When a run does what, in steps."""

    length: int
    """Steps in all."""
    report_every: int = 100
    """Steps between reports of training figures, at which the run also hears whether to end."""
    validate_every: int | None = None
    """Steps between validations; None for one at the end."""
    save_every: int | None = None
    """Steps between checkpoints; None for none by number."""
    save_policy: Literal["best", "all", "none"] = "best"
    """After which validations a checkpoint is saved."""
    validates_first: bool = False
    """Whether there is a validation before the first step."""
    steps_per_epoch: int | None = None
    """What callbacks by epoch count in."""
    judge: str = "val_nlpd"
    """The validation metric that decides which checkpoint is best."""
    smaller_is_better: bool = True


class Driver(Protocol):
    """Who asks for steps, and keeps figures and checkpoints."""

    def status(self, status: str) -> None:
        """The run turned to `training`, `validating` or `checkpointing`."""

    def training(self, step: int, metrics: Metrics) -> None:
        """Some steps were taken."""

    def validation(self, step: int, metrics: Metrics) -> None:
        """A validation was made."""

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep the model as it is, and the state of the loop; on rank 0 alone."""

    def wants_to_end(self) -> bool:
        """Whether the run is to save and end; on rank 0 alone."""


@dataclass
class Progress:
    """Where a loop stands, which a checkpoint keeps beside the model."""

    step: int = 0
    last_validation: int | None = None
    """The step of the latest validation."""
    last_saved: int = 0
    """The step of the latest checkpoint; of step 0 none is needed."""
    best: float | None = None
    """The best value of the judging metric."""
    callbacks: dict[str, Any] = field(default_factory=dict)
    """The callbacks' memories."""


@dataclass(frozen=True)
class Ending:
    """How a loop ended."""

    step: int
    reason: Literal["completed", "stopped", "interrupted"]
    """All steps were taken; a callback ended the training; the driver wanted it to end."""


def _train_step(model: Any, iterator: Iterator[Any]) -> dict[str, tf.Tensor]:
    logs: dict[str, tf.Tensor] = model.train_step(next(iterator))
    return logs


class Loop:
    """Trains a model by a plan.

    The order is that of Determined's sequencer: report, validate, save; at the end a checkpoint,
    then a validation if the last step has none.
    """

    def __init__(
        self,
        model: Any,
        training_data: Callable[[int], tf.data.Dataset],
        validation_data: tf.data.Dataset,
        plan: Plan,
        driver: Driver,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        heartbeat: HeartbeatCallback | None = None,
    ) -> None:
        """:param model: compiled; on several ranks every rank has one, and its own loop.
        :param training_data: endless batches from a step on.
        :param validation_data: every validation row once.
        :param plan: when to do what.
        :param driver: keeps figures and checkpoints.
        :param callbacks: Keras'; they hear of batches, validations and epochs. Those with
            Determined's `on_train_workload_begin` and `on_train_workload_end` hear of what is
            trained between two reports.
        :param heartbeat: shows how far this rank is, where others wait for it.
        """
        self._model = model
        self._training_data = training_data
        self._inspections = [Inspection("the training data"), Inspection("the validation data")]
        self._validation_data = self._inspections[1].of(self._of_inputs(validation_data))
        self._plan = plan
        self._driver = driver
        self._reducer: Reducer = getattr(model, "reducer", None) or OneProcess()
        self.progress = Progress()
        self.callbacks = list(callbacks)
        self._heartbeat = heartbeat
        model.stop_training = False
        self._callbacks = tf.keras.callbacks.CallbackList(
            [*self.callbacks, *([heartbeat] if heartbeat else [])],
            add_history=False,
            add_progbar=False,
            model=model,
        )
        # Partials, as TensorFlow counts the traces of a function's code over all models, and warns.
        self._train_step = tf.function(functools.partial(_train_step, model))
        self._test_step = evaluation_step(model, self._validation_data)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`Driver.save` was given; the model has its variables back."""
        self.progress = Progress(**state)

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep, as plain values."""
        self.progress.callbacks = states_of(self.callbacks)
        return dict(vars(self.progress))

    def tell(self, hook: str, *arguments: Any) -> None:
        """Call a method of those callbacks that have it, as Determined's may."""
        for one in self.callbacks:
            if (method := getattr(one, hook, None)) is not None:
                method(*arguments)

    def run(self) -> Ending:
        """Train to the end of the plan, or until a callback or the driver ends it.

        :raises TrainingFailure: if training breaks down; it says why, and what to change.
        """
        progress = self.progress
        self._callbacks.on_train_begin()
        load_states(self.callbacks, progress.callbacks)
        try:
            reason = self._run()
            if progress.step != progress.last_saved:
                self._save()
            if reason == "completed" and progress.last_validation != progress.step:
                self._validate()
        except (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError) as error:
            why = explain_failure(self._model, progress.step, error.message)
            if why is None:
                raise
            raise TrainingFailure(why) from error
        self._callbacks.on_train_end()
        if self._heartbeat is not None:
            self._heartbeat.end()
        return Ending(progress.step, reason)

    def _run(self) -> Literal["completed", "stopped", "interrupted"]:
        plan, progress = self._plan, self.progress
        if any(isinstance(one, EarlyStopping) and one.has_stopped for one in self.callbacks):
            return "stopped"
        if plan.validates_first and progress.step == 0 and progress.last_validation is None:
            self._validate()
        elif progress.step and self._until(progress.last_validation, plan.validate_every) < 1:
            self._validate()  # which was due when the run was interrupted
        batches: Iterator[Any] | None = None
        while progress.step < plan.length:
            if (ending := self._ending()) is not None:
                return ending
            if batches is None:
                data = self._of_inputs(self._training_data(progress.step))
                batches = iter(self._inspections[0].of(data))
            steps = min(
                self._until(progress.last_saved, plan.save_every),
                self._until(progress.last_validation, plan.validate_every),
                plan.length - progress.step,
                plan.report_every,
            )
            self._train(batches, max(1, int(steps)))
            if (ending := self._ending()) is not None:
                return ending
            if self._until(progress.last_validation, plan.validate_every) < 1:
                self._validate()
            if self._until(progress.last_saved, plan.save_every) < 1:
                self._save()
        return "completed"

    def _ending(self) -> Literal["stopped", "interrupted"] | None:
        """Whether a callback of any rank, or rank 0's driver, ends the run here.

        Asked before and after training; all ranks hear it at the same step.
        """
        stops = bool(self._model.stop_training)
        wants = self._reducer.rank == 0 and self._driver.wants_to_end()
        if self._reducer.size > 1:
            votes = self._reducer.total(tf.constant([float(stops), float(wants)]))
            stops, wants = (float(vote) > 0 for vote in votes)
        return "stopped" if stops else "interrupted" if wants else None

    def _of_inputs(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        return with_names(batches, getattr(self._model, "input_names", None))

    def _until(self, last: int | None, period: int | None) -> float:
        return math.inf if period is None else (last or 0) + period - self.progress.step

    def _train(self, batches: Iterator[Any], steps: int) -> None:
        self._driver.status("training")
        plan, progress = self._plan, self.progress
        per_epoch = plan.steps_per_epoch
        logs: dict[str, Any] = {}
        self._model.reset_metrics()
        self.tell("on_train_workload_begin", progress.step, steps, {})
        for _ in range(steps):
            in_epoch = progress.step % per_epoch if per_epoch else progress.step
            if per_epoch and in_epoch == 0:
                self._callbacks.on_epoch_begin(progress.step // per_epoch)
            self._callbacks.on_train_batch_begin(in_epoch)
            logs = self._train_step(batches)
            loss = float(logs["loss"])
            if not math.isfinite(loss):
                raise self._broken(f"loss is {loss} in the step after step {progress.step}")
            self._callbacks.on_train_batch_end(in_epoch, logs)
            progress.step += 1
            if self._heartbeat is not None:
                self._heartbeat.end_batch()
            if per_epoch and in_epoch == per_epoch - 1:
                self._callbacks.on_epoch_end(progress.step // per_epoch - 1, {})
        metrics = {name: float(value) for name, value in logs.items()}
        self.tell("on_train_workload_end", progress.step, metrics)
        metrics |= self._counts()
        self._wait()
        self._driver.training(progress.step, metrics)

    def _validate(self) -> None:
        self._driver.status("validating")
        progress = self.progress
        self._callbacks.on_test_begin()
        self._model.reset_metrics()
        logs: dict[str, Any] = {}
        for number, batch in enumerate(self._validation_data):
            self._callbacks.on_test_batch_begin(number)
            logs = self._test_step(batch)
            self._callbacks.on_test_batch_end(number, logs)
        metrics = {f"val_{name}": float(value) for name, value in logs.items()}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise self._broken(f"{name} is {value} after step {progress.step}")
        self._callbacks.on_test_end(metrics)
        if not metrics:
            raise BadBatch("the validation data have no batch; have their loader give rows")
        if self._plan.judge not in metrics:
            raise TrainingFailure(
                f"searcher.metric is {self._plan.judge}, which this model does not report; name "
                f"one of {', '.join(metrics)}"
            )
        metrics |= self._counts()
        self._wait()
        progress.last_validation = progress.step
        is_best = self._note(metrics[self._plan.judge])
        self._driver.validation(progress.step, metrics)
        saves = {"all": True, "best": is_best, "none": False}[self._plan.save_policy]
        if saves and progress.last_saved != progress.step:
            self._save()

    def _counts(self) -> Metrics:
        step, per_epoch = self.progress.step, self._plan.steps_per_epoch
        return {"batches": float(step), "epochs": float(step // per_epoch if per_epoch else 0)}

    def _wait(self) -> None:
        """What a driver does next may take any time."""
        if self._heartbeat is not None:
            self._heartbeat.wait()

    def _note(self, value: float) -> bool:
        best = self.progress.best
        better = best is None or (value < best if self._plan.smaller_is_better else value > best)
        if better:
            self.progress.best = value
        return better

    def _save(self) -> None:
        self._driver.status("checkpointing")
        if self._heartbeat is not None:
            self._heartbeat.save()
        check_drift(self._model)
        if (aggregated := getattr(self._model, "aggregated", None)) is not None:
            gather_on_first_rank(aggregated, self._reducer)
        self.progress.last_saved = self.progress.step
        if self._reducer.rank == 0:
            self._driver.save(self.progress.step, self.state())

    def _broken(self, what: str) -> Exception:
        # Why a figure is not finite, the same on every rank: if data are to blame, one has seen it.
        own = next((one.found for one in self._inspections if one.found is not None), "")
        if found := first_text(self._reducer, own):
            return BadBatch(f"{what}: {found}")
        return TrainingFailure(explain_breakdown(self._model, what))
