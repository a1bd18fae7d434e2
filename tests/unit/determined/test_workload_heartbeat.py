from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from determined import workload

from natdgp.determined.workload_heartbeat import WorkloadHeartbeat
from natdgp.distributed.heartbeat import Heartbeat, Phase, read_heartbeat


def test_a_rank_is_at_work_during_workloads(tmp_path: Path) -> None:
    with (tmp_path / "heartbeats").open("w+b") as file:
        callback = WorkloadHeartbeat(Heartbeat(file, 0), 0)

        def shown() -> Phase:
            reading = read_heartbeat(file, 0)
            assert reading is not None
            return reading.phase

        between: list[Phase] = []

        def given() -> Iterator[tuple[workload.Workload, workload.ResponseFunc]]:
            for kind in ("RUN_STEP", "COMPUTE_VALIDATION_METRICS", "CHECKPOINT_MODEL"):
                between.append(shown())
                work = workload.Workload(workload.Workload.Kind[kind], 1, 1, 1, 1, 0)
                yield work, lambda response: None
            between.append(shown())

        during = [shown() for _ in callback.during(given())]
    assert during == [Phase.TRAINING, Phase.VALIDATING, Phase.SAVING]
    assert between == [Phase.WAITING] * 4
