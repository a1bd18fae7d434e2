"""Small tasks that many tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from ruamel.yaml import YAML

from natdgp.distributed.rank_channel import RankChannel

REPOSITORY = Path(__file__).parent.parent

FloatArray = npt.NDArray[np.float64]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes run the tests, one has a whole file, and all that need the image."""
    for item in items:
        group = "cluster" if "cluster" in item.path.parts else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def hangup_heeded() -> Iterator[None]:
    """SIGHUP has its default meaning here and in what is started, though `nohup` runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def channel() -> Iterator[RankChannel]:
    """Of two ranks."""
    with tempfile.TemporaryFile(buffering=0) as file:
        yield RankChannel(file, 2)


@pytest.fixture
def waves() -> tuple[FloatArray, FloatArray]:
    """300 rows of three standard inputs, and a noisy wave of them; [300, 3] and [300, 1]."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 3))
    Y = np.sin(2 * X[:, :1]) + 0.5 * X[:, 1:2] + 0.1 * generator.normal(size=(300, 1))
    return X, (Y - Y.mean()) / Y.std()


@pytest.fixture
def small_experiment(tmp_path: Path, waves: tuple[FloatArray, FloatArray]) -> dict[str, Any]:
    """An experiment on a CSV file of the waves that trains in seconds; plain values to edit."""
    X, Y = waves
    table = pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": 10 * Y[:, 0] + 3})
    path = tmp_path / "waves.csv"
    table.write_csv(path)
    return {
        "name": "waves",
        "entrypoint": "python3 -m determined.launch.horovod --autohorovod "
        "--trial trials.deep_gp:DeepGPTrial",
        "environment": {"image": "determinedai/tensorflow-ngc:0.38.1"},
        "searcher": {
            "name": "single",
            "metric": "val_nlpd",
            "smaller_is_better": True,
            "max_length": {"batches": 12},
        },
        "min_validation_period": {"batches": 4},
        "scheduling_unit": 2,
        "data": {"source": "csv", "path": str(path), "target": ["y"]},
        "hyperparameters": {
            "global_batch_size": 32,
            "model": {"layers": 2, "inducing_points": 10},
            "natural_gradient": {"gamma": 0.1, "gamma_initial": 0.01, "ramp_steps": 8},
            "adam": {
                "learning_rate": 0.01,
                "schedule": {"name": "exponential", "decay_rate": 0.5, "decay_steps": 10},
            },
            "evaluation": {"num_samples": 3, "batch_size": 16},
        },
    }


@pytest.fixture
def write_experiment(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Writes an experiment's plain values to a YAML file and returns its path."""

    def write(config: dict[str, Any]) -> Path:
        path = tmp_path / "experiment.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(config, file)
        return path

    return write


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """4 MiB, not under `tmp_path`: a later run could not clear the mount of a killed one away."""
    place = Path(tempfile.mkdtemp(prefix="natdgp-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "natdgp-test", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        place.rmdir()
        pytest.skip(f"a full disk needs a small one, hence root: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
    place.rmdir()


def fill(disk: Path, free: int = 0) -> None:
    """Leave so many bytes of a small disk."""
    disk_now = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(disk_now.f_bavail * disk_now.f_frsize - free))
