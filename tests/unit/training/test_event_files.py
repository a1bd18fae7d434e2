from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.util import event_pb2

from natdgp.training.event_files import EventFiles


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents*"))


def _scalars(file: Path) -> list[tuple[str, int, float]]:
    events = map(event_pb2.Event.FromString, tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    return [
        (value.tag, event.step, float(tf.make_ndarray(value.tensor)))
        for event in events
        for value in event.summary.value
    ]


def test_scalars_are_on_disk_once_flushed_or_closed_and_no_file_for_none(tmp_path: Path) -> None:
    writer = EventFiles(tmp_path / "tensorboard")
    writer.flush()
    writer.close()
    assert not list(tmp_path.iterdir())
    writer.add_scalar("loss", 1.5, 3)
    writer.add_scalar("val_nlpd", np.float64(0.25), 3)
    writer.flush()
    (file,) = _files(tmp_path / "tensorboard")
    assert _scalars(file) == [("loss", 3, 1.5), ("val_nlpd", 3, 0.25)]
    writer.add_scalar("batches", 7, 4)
    writer.close()
    assert _scalars(file) == [("loss", 3, 1.5), ("val_nlpd", 3, 0.25), ("batches", 4, 7.0)]


def test_what_no_float32_can_hold_is_left_out(tmp_path: Path) -> None:
    writer = EventFiles(tmp_path)
    for step, value in enumerate([-1e38, 1e39, -math.inf, math.nan]):
        writer.add_scalar("loss", value, step)
    writer.close()
    (file,) = _files(tmp_path)
    assert [step for _, step, _ in _scalars(file)] == [0]


def test_a_file_is_final_after_a_reset(tmp_path: Path) -> None:
    writer = EventFiles(tmp_path)
    writer.add_scalar("loss", 1.0, 1)
    writer.close()
    (first,) = _files(tmp_path)
    before = first.read_bytes()
    writer.add_scalar("loss", 2.0, 2)
    writer.close()
    assert first.read_bytes() == before
    (second,) = set(_files(tmp_path)) - {first}
    assert _scalars(second) == [("loss", 2, 2.0)]
