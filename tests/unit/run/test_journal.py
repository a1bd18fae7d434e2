from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from natdgp.run.journal import TRAINING, VALIDATION, Journal
from natdgp.run.run_folder import Checkpoint, FolderError, read_json_lines
from natdgp.training.diagnosis import TrainingFailure
from natdgp.training.loop import Plan


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def _open(path: Path, up_to: int = 0, *, smaller_is_better: bool = True) -> Journal:
    plan = Plan(length=99, judge="val_x", smaller_is_better=smaller_is_better)
    return Journal(path, plan, up_to=up_to)


def _written(path: Path) -> list[tuple[str, int]]:
    return [(entry["group"], entry["steps_completed"]) for entry in read_json_lines(path)]


def test_reports_are_on_disk_at_once_with_group_step_time_and_plain_floats(path: Path) -> None:
    journal = _open(path)
    metrics: dict[str, Any] = {
        "int": 3,
        "numpy": np.float32(0.5),
        "array": np.array(0.25),
        "tensor": tf.constant(0.1, tf.float64),
    }
    journal.write(TRAINING, 2, metrics)
    entry = json.loads(path.read_text())
    assert entry.keys() == {"group", "steps_completed", "time", "metrics"}
    assert (entry["group"], entry["steps_completed"]) == ("training", 2)
    assert entry["metrics"] == {"int": 3.0, "numpy": 0.5, "array": 0.25, "tensor": 0.1}
    assert all(type(value) is float for value in entry["metrics"].values())
    assert 1.5e9 < entry["time"] < 1e11


@pytest.mark.parametrize(("smaller_is_better", "best"), [(True, 8), (False, 12)])
def test_the_best_comes_first_also_when_read_back_to_the_last_digit(
    path: Path, smaller_is_better: bool, best: int
) -> None:
    journal = _open(path, smaller_is_better=smaller_is_better)
    checkpoints = [Checkpoint(path, steps) for steps in (4, 8, 12, 14)]
    assert journal.best(checkpoints) == checkpoints[-1]
    for steps, value in ((4, 0.1 + 2 / 3), (8, 0.1 + 1e-17), (12, 3.0)):
        journal.write(VALIDATION, steps, {"val_x": value, "val_other": -value})
    journal.write(TRAINING, 14, {"loss": -9.0})
    for one in (journal, _open(path, 14, smaller_is_better=smaller_is_better)):
        assert one.validations[4] == {"val_x": 0.1 + 2 / 3, "val_other": -0.1 - 2 / 3}
        assert one.best(checkpoints) == Checkpoint(path, best)
        assert one.best([]) is None
        order = [4, 12] if smaller_is_better else [12, 4]
        assert [each.steps for each in one.best_first(checkpoints) if each.steps != 8] == order


def test_reports_beyond_the_checkpoint_are_dropped_from_file_and_memory(path: Path) -> None:
    journal = _open(path)
    for steps in (4, 8, 12):
        journal.write(TRAINING, steps, {"loss": 0.0})
        journal.write(VALIDATION, steps, {"val_x": -float(steps)})
    again = _open(path, up_to=8)
    assert again.validations == {4: {"val_x": -4.0}, 8: {"val_x": -8.0}}
    again.write(TRAINING, 10, {"loss": 0.0})
    assert _written(path) == [
        ("training", 4),
        ("validation", 4),
        ("training", 8),
        ("validation", 8),
        ("training", 10),
    ]


@pytest.mark.parametrize("up_to", [-1, 4])
def test_the_file_stays_as_it_is_until_there_is_a_report(path: Path, up_to: int) -> None:
    journal = _open(path)
    for steps in (0, 4, 8):
        journal.write(VALIDATION, steps, {"val_x": float(steps)})
    before = path.read_bytes()
    again = _open(path, up_to)
    assert path.read_bytes() == before
    again.write(VALIDATION, 12, {"val_x": 0.0})
    kept = [] if up_to < 0 else [("validation", 0), ("validation", 4)]
    assert _written(path) == [*kept, ("validation", 12)]


def test_a_validation_that_is_repeated_is_written_once(path: Path) -> None:
    journal = _open(path)
    journal.write(TRAINING, 4, {"loss": 0.0})
    journal.write(VALIDATION, 4, {"val_x": 1.0})
    again = _open(path, up_to=4)
    again.write(VALIDATION, 4, {"val_x": 1.0 + 1e-12})
    again.write(VALIDATION, 8, {"val_x": 2.0})
    assert _written(path) == [("training", 4), ("validation", 4), ("validation", 8)]
    assert again.validations[4] == {"val_x": 1.0}


def test_a_last_line_cut_short_is_forgotten_and_does_not_spoil_the_next(path: Path) -> None:
    journal = _open(path)
    journal.write(VALIDATION, 4, {"val_x": 1.0})
    with path.open("a") as file:
        file.write('{"group": "validation", "steps_comp')
    again = _open(path, up_to=8)
    assert [*again.validations] == [4]
    again.write(VALIDATION, 8, {"val_x": 2.0})
    assert _written(path) == [("validation", 4), ("validation", 8)]


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"steps_completed": "4"},
        {"steps_completed": 4},
        {"group": VALIDATION, "steps_completed": 4, "metrics": {"val_y": 1.0}},
        {"group": VALIDATION, "steps_completed": 4, "metrics": {"val_x": "low"}},
    ],
)
def test_a_line_that_is_no_report_is_told_with_its_number(path: Path, line: object) -> None:
    _open(path).write(TRAINING, 2, {"loss": 1.0})
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    before = path.read_bytes()
    with pytest.raises(FolderError, match=r"metrics\.jsonl, line 2: this is no report of the run"):
        _open(path, 4)
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_told_and_not_written(path: Path, value: float) -> None:
    journal = _open(path)
    with pytest.raises(TrainingFailure, match=f"mine is {value} in training after step 2"):
        journal.write(TRAINING, 2, {"mine": value})
    assert not path.exists()
