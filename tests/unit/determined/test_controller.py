"""What the controller adds around Determined's loop, without running it; test_trial.py runs it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import determined as det
import pytest
import tensorflow as tf
from determined import keras, workload
from determined.layers._workload_sequencer import ShouldExit

from natdgp.determined import controller
from natdgp.determined.controller import DeepGPController

RESPONSE: workload.Response = {}


def _work(kind: str) -> workload.Workload:
    return workload.Workload(workload.Workload.Kind[kind], 1, 1, 1, 1, 0)


class _Log:
    """Notes what is called, in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def note(self, name: str) -> Any:
        return lambda *arguments: self.events.append((name, *arguments))


def _controller(**attributes: Any) -> DeepGPController:
    bare = DeepGPController.__new__(DeepGPController)
    for name, value in attributes.items():
        setattr(bare, name, value)
    return bare


def _stream(log: _Log, *kinds: str) -> workload.Stream:
    for kind in kinds:
        log.events.append(("work", kind))
        yield _work(kind), log.note("response")


def test_before_a_checkpoint_ranks_are_compared_and_aggregated_gradients_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = _Log()
    monkeypatch.setattr(controller, "check_drift", lambda model: log.events.append("drift"))
    monkeypatch.setattr(controller, "gather_on_first_rank", lambda *_: log.events.append("gather"))
    model = SimpleNamespace(aggregated=object(), reducer=None)
    stream = _controller(model=model, _progress=None)._ready_to_save(
        _stream(log, "RUN_STEP", "CHECKPOINT_MODEL", "RUN_STEP")
    )
    kinds = [work.kind.name for work, _ in stream]
    assert kinds == ["RUN_STEP", "CHECKPOINT_MODEL", "RUN_STEP"]
    assert log.events == [
        ("work", "RUN_STEP"),
        ("work", "CHECKPOINT_MODEL"),
        "drift",
        "gather",
        ("work", "RUN_STEP"),
    ]


def test_drift_keeps_a_checkpoint_from_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def drifted(model: object) -> None:
        raise RuntimeError("drift")

    monkeypatch.setattr(controller, "check_drift", drifted)
    stream = _controller(model=None, _progress=None)._ready_to_save(
        _stream(_Log(), "CHECKPOINT_MODEL")
    )
    with pytest.raises(RuntimeError, match="drift"):
        next(stream)


def _validating(log: _Log, *, exits: bool = False) -> DeepGPController:
    def validate(exit_: object) -> Iterator[tuple[workload.Workload, Any]]:
        yield _work("COMPUTE_VALIDATION_METRICS"), log.note("response")
        if exits:
            raise ShouldExit

    distributed = SimpleNamespace(
        broadcast=lambda work: log.events.append(("broadcast", work and work.kind.name)),
        gather=log.note("gather"),
    )
    return _controller(
        wlsq=SimpleNamespace(validate=validate), context=SimpleNamespace(distributed=distributed)
    )


def test_a_validation_that_is_due_is_done_first_on_all_ranks() -> None:
    log = _Log()
    stream = _validating(log)._validation_first(_stream(log, "RUN_STEP"))
    for _, respond in stream:
        respond(RESPONSE)
    assert log.events == [
        ("broadcast", "COMPUTE_VALIDATION_METRICS"),
        ("response", RESPONSE),
        ("gather", None),  # the other ranks have done it too
        ("work", "RUN_STEP"),
        ("response", RESPONSE),
    ]


def test_all_ranks_end_where_the_validation_ends_the_trial() -> None:
    log = _Log()
    stream = _validating(log, exits=True)._validation_first(_stream(log, "RUN_STEP"))
    assert [work.kind.name for work, _ in stream] == ["COMPUTE_VALIDATION_METRICS"]
    assert log.events[-1] == ("broadcast", None)


def _failing_fit(monkeypatch: pytest.MonkeyPatch, message: str) -> DeepGPController:
    def fail(_: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, message)

    monkeypatch.setattr(keras.TFKerasTrialController, "_launch_fit", fail)
    return _controller(model=None, env=SimpleNamespace(on_cluster=False), steps_completed=3)


def test_exhausted_memory_is_an_invalid_hyperparameter(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = _failing_fit(monkeypatch, "OOM when allocating tensor with shape[9,9]")
    with pytest.raises(det.InvalidHP) as raised:
        failing._launch_fit()
    assert "hyperparameters.global_batch_size" in raised.value.msg


def test_a_full_disk_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = _failing_fit(monkeypatch, "/runs/events.out; No space left on device")
    with pytest.raises(tf.errors.ResourceExhaustedError, match="No space left"):
        failing._launch_fit()
