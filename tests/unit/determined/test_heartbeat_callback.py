from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from determined import workload

from natdgp.determined.heartbeat_callback import HeartbeatCallback
from natdgp.distributed.heartbeat import Heartbeat, Phase, Reading, read_heartbeat


@pytest.fixture
def file(tmp_path: Path) -> Iterator[IO[bytes]]:
    with (tmp_path / "heartbeats").open("w+b") as opened:
        yield opened


def _shown(file: IO[bytes]) -> tuple[int, int, Phase, bool]:
    reading = read_heartbeat(file, 0)
    assert isinstance(reading, Reading)
    return reading.events, reading.steps, reading.phase, reading.first


def test_batches_are_noted_as_they_begin_and_end(file: IO[bytes]) -> None:
    callback = HeartbeatCallback(Heartbeat(file, 0), 40)
    callback.on_train_batch_begin(0)
    callback.arrive()
    assert _shown(file) == (2, 40, Phase.TRAINING, True)
    callback.end_batch()
    assert _shown(file) == (3, 41, Phase.TRAINING, False)
    callback.on_test_batch_begin(0)
    assert _shown(file) == (4, 41, Phase.VALIDATING, True)
    callback.on_test_batch_end(0)
    assert _shown(file) == (5, 41, Phase.VALIDATING, False)
    callback.compare()
    assert _shown(file) == (6, 41, Phase.TRAINING, False)
    callback.end()
    assert _shown(file)[2] is Phase.ENDING


def test_a_rank_is_at_work_during_workloads_but_for_saving(file: IO[bytes]) -> None:
    phases: list[Phase] = []

    def given() -> Iterator[tuple[workload.Workload, workload.ResponseFunc]]:
        for kind in ("RUN_STEP", "COMPUTE_VALIDATION_METRICS", "CHECKPOINT_MODEL"):
            phases.append(_shown(file)[2])
            work = workload.Workload(workload.Workload.Kind[kind], 1, 1, 1, 1, 0)
            yield work, lambda response: None
        phases.append(_shown(file)[2])

    stream = HeartbeatCallback(Heartbeat(file, 0), 0).during(given())
    during = [_shown(file)[2] for _ in stream]
    assert during == [Phase.TRAINING, Phase.VALIDATING, Phase.WAITING]
    assert phases == [Phase.WAITING] * 4
