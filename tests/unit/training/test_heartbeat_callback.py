from __future__ import annotations

from pathlib import Path

from natdgp.distributed.heartbeat import Heartbeat, Phase, read_heartbeat
from natdgp.training.heartbeat_callback import HeartbeatCallback


def test_batches_are_noted_as_they_begin_and_end(tmp_path: Path) -> None:
    with (tmp_path / "heartbeats").open("w+b") as file:
        callback = HeartbeatCallback(Heartbeat(file, 0), 40)

        def shown() -> tuple[int, int, Phase, bool]:
            reading = read_heartbeat(file, 0)
            assert reading is not None
            return reading.events, reading.steps, reading.phase, reading.first

        callback.on_train_batch_begin(0)
        callback.arrive()
        assert shown() == (2, 40, Phase.TRAINING, True)
        callback.end_batch()
        assert shown() == (3, 41, Phase.TRAINING, False)
        callback.on_test_batch_begin(0)
        assert shown() == (4, 41, Phase.VALIDATING, True)
        callback.on_test_batch_end(0)
        assert shown() == (5, 41, Phase.VALIDATING, False)
        callback.save()
        callback.arrive()
        assert shown() == (7, 41, Phase.SAVING, True)
        callback.wait()
        assert shown()[2] is Phase.WAITING
        callback.end()
        assert shown()[2] is Phase.ENDING
