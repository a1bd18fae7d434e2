from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from natdgp.run.journal import TRAINING, VALIDATION, Journal
from natdgp.run.run_folder import FolderError, read_json_lines
from natdgp.training.diagnosis import TrainingFailure


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def _open(path: Path, up_to: int = 0, *, smaller_is_better: bool = True) -> Journal:
    return Journal(path, up_to=up_to, metric="val_x", smaller_is_better=smaller_is_better)


def _written(path: Path) -> list[tuple[str, int]]:
    return [(entry["group"], entry["steps_completed"]) for entry in read_json_lines(path)]


def test_a_new_journal_is_empty(path: Path) -> None:
    journal = _open(path)
    assert not path.exists()
    assert (journal.last_validation, journal.value_at(4), journal.figures_at(4)) == (None, None, {})


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


def test_every_digit_comes_back(path: Path) -> None:
    value = 0.1 + 1e-17 + 2 / 3
    _open(path).write(VALIDATION, 4, {"val_x": value})
    assert _open(path, 4).value_at(4) == value


@pytest.mark.parametrize(("smaller_is_better", "best"), [(True, 1.0), (False, 3.0)])
def test_the_best_value_ranks_first_also_when_read_back(
    path: Path, smaller_is_better: bool, best: float
) -> None:
    journal = _open(path, smaller_is_better=smaller_is_better)
    for steps, value in ((4, 2.0), (8, 1.0), (12, 3.0)):
        journal.write(VALIDATION, steps, {"val_x": value, "val_other": -value})
    journal.write(TRAINING, 14, {"loss": -9.0})
    for one in (journal, _open(path, 14, smaller_is_better=smaller_is_better)):
        assert one.last_validation == 12
        assert one.figures_at(8) == {"val_x": 1.0, "val_other": -1.0}
        assert sorted((2.0, 1.0, 3.0), key=one.rank)[0] == best


def test_reports_beyond_the_checkpoint_are_dropped_from_file_and_memory(path: Path) -> None:
    journal = _open(path)
    for steps in (4, 8, 12):
        journal.write(TRAINING, steps, {"loss": 0.0})
        journal.write(VALIDATION, steps, {"val_x": -float(steps)})
    again = _open(path, up_to=8)
    assert (again.value_at(8), again.last_validation, again.value_at(12)) == (-8.0, 8, None)
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
    assert again.value_at(4) == 1.0


def test_a_last_line_cut_short_is_forgotten_and_does_not_spoil_the_next(path: Path) -> None:
    journal = _open(path)
    journal.write(VALIDATION, 4, {"val_x": 1.0})
    with path.open("a") as file:
        file.write('{"group": "validation", "steps_comp')
    again = _open(path, up_to=8)
    assert again.last_validation == 4
    again.write(VALIDATION, 8, {"val_x": 2.0})
    assert _written(path) == [("validation", 4), ("validation", 8)]


def test_nothing_is_left_beside_the_journal(path: Path) -> None:
    _open(path).write(TRAINING, 1, {"loss": 1.0})
    _open(path, 1)
    assert list(path.parent.iterdir()) == [path]


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
