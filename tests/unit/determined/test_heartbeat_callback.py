from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from determined import workload

from natdgp.determined.heartbeat_callback import ShowsProgress
from natdgp.distributed.heartbeat import Phase, Pulse, Reading, read_pulse


def _shown(root: Path) -> tuple[int, int, Phase]:
    reading = read_pulse(root, 0)
    assert isinstance(reading, Reading)
    return reading.events, reading.steps, reading.phase


def test_batches_are_noted_as_they_begin_and_end(tmp_path: Path) -> None:
    progress = ShowsProgress(Pulse(tmp_path, 0), 40)
    progress.on_train_batch_begin(0)
    assert _shown(tmp_path) == (1, 40, Phase.TRAINING)
    progress.end_batch()
    assert _shown(tmp_path) == (2, 41, Phase.TRAINING)
    progress.on_test_batch_begin(0)
    progress.on_test_batch_end(0)
    assert _shown(tmp_path) == (4, 41, Phase.TRAINING)
    progress.end()
    assert _shown(tmp_path) == (4, 41, Phase.ENDING)


def test_a_rank_is_at_work_during_workloads_but_for_saving(tmp_path: Path) -> None:
    phases: list[Phase] = []

    def given() -> Iterator[tuple[workload.Workload, workload.ResponseFunc]]:
        for kind in ("RUN_STEP", "COMPUTE_VALIDATION_METRICS", "CHECKPOINT_MODEL"):
            phases.append(_shown(tmp_path)[2])
            work = workload.Workload(workload.Workload.Kind[kind], 1, 1, 1, 1, 0)
            yield work, lambda response: None
        phases.append(_shown(tmp_path)[2])

    stream = ShowsProgress(Pulse(tmp_path, 0), 0).during(given())
    during = [_shown(tmp_path)[2] for _ in stream]
    assert during == [Phase.TRAINING, Phase.TRAINING, Phase.BETWEEN]
    assert phases == [Phase.BETWEEN] * 4
