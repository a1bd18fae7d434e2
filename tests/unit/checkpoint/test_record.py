from __future__ import annotations

import importlib.metadata
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpflow
import numpy as np
import pytest
import tensorflow as tf

import natdgp
from natdgp.checkpoint.checksums import RECORD_NAME, DamagedCheckpoint
from natdgp.checkpoint.record import FORMAT, ModelRecord, NewerFormat, TaskRecord, versions
from natdgp.data.data_settings import TableSettings
from natdgp.data.scaling import Scaling
from natdgp.likelihoods.student_t import StudentTSettings
from natdgp.models.model_settings import ModelSettings
from natdgp.natgrad.natgrad_settings import NaturalGradientSettings
from natdgp.settings.schema import Settings
from natdgp.training.training_settings import AdamSettings, CosineSchedule, EarlyStoppingSettings

# Floats whose decimal forms are long, tiny, huge or one bit from a round number.
AWKWARD = np.array([1 / 3, np.nextafter(1.0, 2.0), 5e-324, 1.7976931348623157e308, -0.1])


def _record() -> ModelRecord:
    settings = Settings(
        global_batch_size=64,
        data=TableSettings(source="csv", path="some/table.csv", target=("y", "z")),
        model=ModelSettings(
            layers=3,
            inducing_points=(5, 6, 7),
            hidden_width=2,
            likelihood=StudentTSettings(name="student_t", scale=1 / 3),
            inner_q_sqrt_scale=1e-7,
        ),
        natural_gradient=NaturalGradientSettings(
            layers=(0, 2), gamma=0.1 + 0.2, gamma_initial=1e-9, ramp_steps=7
        ),
        adam=AdamSettings(schedule=CosineSchedule(name="cosine", decay_steps=3, alpha=1 / 7)),
        early_stopping=EarlyStoppingSettings(monitor="val_crps"),
    )
    scaling = Scaling(
        x_mean=AWKWARD, x_std=abs(AWKWARD[::-1]), y_mean=AWKWARD[:2], y_std=AWKWARD[2:4]
    )
    task = TaskRecord(123, ("a", "b", "c", "d", "é"), ("y", "z"), scaling, "fingerprint")
    structure = {"layers": [{"class": "GPLayer"}], "likelihood": {"df": 3.0}}
    return ModelRecord(settings, task, seed=2**63 - 1, structure=structure)


def _rewrite(folder: Path, **changes: Any) -> None:
    path = folder / RECORD_NAME
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def test_a_record_of_an_earlier_version_that_let_the_machine_place_steps_is_read(
    tmp_path: Path,
) -> None:
    record = _record()
    record.write(tmp_path)
    settings = json.loads((tmp_path / RECORD_NAME).read_text("utf-8"))["settings"]
    settings["natural_gradient"]["placement"] = "auto"
    _rewrite(tmp_path, settings=settings)
    assert ModelRecord.read(tmp_path).settings == record.settings


PLAIN = Settings(
    global_batch_size=1, data=TableSettings(source="parquet", path="t.parquet", target=("y",))
)


@pytest.mark.parametrize("settings", [_record().settings, PLAIN], ids=["many", "defaults"])
def test_a_record_comes_back_as_it_was(tmp_path: Path, settings: Settings) -> None:
    record = replace(_record(), settings=settings)
    record.write(tmp_path)
    read = ModelRecord.read(tmp_path)
    assert read.settings == record.settings
    assert read.seed == record.seed
    assert read.structure == record.structure
    assert read.task.num_data == 123
    assert read.task.features == record.task.features
    assert read.task.targets == record.task.targets
    assert read.task.fingerprint == record.task.fingerprint
    for name in ("x_mean", "x_std", "y_mean", "y_std"):
        ours, theirs = getattr(record.task.scaling, name), getattr(read.task.scaling, name)
        assert theirs.dtype == np.float64
        np.testing.assert_array_equal(theirs, ours, err_msg=name)  # to the last bit


def test_a_newer_format_is_refused_and_the_remedy_named(tmp_path: Path) -> None:
    _record().write(tmp_path)
    _rewrite(tmp_path, format=FORMAT + 1, settings="of another kind")
    with pytest.raises(
        NewerFormat, match=rf"has format {FORMAT + 1}, newer than {FORMAT}.*upgrade natdgp"
    ):
        ModelRecord.read(tmp_path)


@pytest.mark.parametrize("num_data", ["Infinity", "NaN", "1e400", "0", "-3", "1" * 4000, "[]"])
def test_a_number_of_rows_that_is_none_is_refused(tmp_path: Path, num_data: str) -> None:
    _record().write(tmp_path)
    path = tmp_path / RECORD_NAME
    path.write_text(path.read_text("utf-8").replace('"num_data": 123', f'"num_data": {num_data}'))
    with pytest.raises(DamagedCheckpoint, match=f"{RECORD_NAME} is no record of a model"):
        ModelRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("features", [{}, {}, {}, {}, {}]),
        ("features", "abcde"),
        ("features", ["a", "b", "c", "d", "a"]),
        ("targets", []),
        ("targets", None),
        *(("scaling.y_std", [1.0, std]) for std in (0, -1.0, math.nan, math.inf, "x", None, [1])),
        ("scaling.x_std", [1.0] * 4),
        ("scaling.x_mean", [1.0] * 6),
        ("scaling.x_mean", 1.0),
        ("scaling.y_mean", [0.0, -math.inf]),
    ],
)
def test_a_task_that_no_data_can_have_is_refused_by_its_field(
    tmp_path: Path, field: str, value: Any
) -> None:
    _record().write(tmp_path)
    task = _record().task.to_dict()
    group, _, name = field.rpartition(".")
    (task[group] if group else task)[name] = value
    _rewrite(tmp_path, task=task)
    with pytest.raises(DamagedCheckpoint, match=f"{RECORD_NAME} is no record of a model.*{field}"):
        ModelRecord.read(tmp_path)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"\x00", b"[]"])
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD_NAME).write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=f"{RECORD_NAME} is no record of a model"):
        ModelRecord.read(tmp_path)


def test_other_versions_of_the_stack_do_not_stop_reading(tmp_path: Path) -> None:
    _record().write(tmp_path)
    _rewrite(tmp_path, versions={"natdgp": "0.0.0"})
    assert ModelRecord.read(tmp_path).settings == _record().settings


def test_a_record_lists_the_versions_that_wrote_it(tmp_path: Path) -> None:
    _record().write(tmp_path)
    saved = json.loads((tmp_path / RECORD_NAME).read_text("utf-8"))
    assert saved["format"] == FORMAT
    assert saved["versions"] == versions()
    assert versions() == {
        "natdgp": natdgp.__version__,
        "tensorflow": tf.__version__,
        "tensorflow-probability": importlib.metadata.version("tensorflow-probability"),
        "gpflow": gpflow.__version__,
        "gpflux": importlib.metadata.version("gpflux"),
        "numpy": np.__version__,
        **{name: found for name, found in versions().items() if name == "determined"},
    }
