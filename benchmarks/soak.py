"""A long run of a small model: what grows with the steps, and what must not.

Trains 20,000 steps on 5,000 flights, with a validation and a checkpoint every 250 steps, and notes
resident memory, open files and the time of a step after each validation. Prints a table and the
growth over the second half, by a straight line through it; `--plot` draws all three.

    python benchmarks/soak.py [--steps 20000] [--plot docs/soak.png]

Measured on two cores with Python 3.10, as on the cluster's image: 0.4 MiB, 0.000 files and -0.2 ms
a step more per 10,000 steps, which `docs/soak.png` shows. With Python 3.11, TensorFlow 2.15 loses
40 bytes with every eager tensor (tensorflow issue 62551, without natdgp too), of which a step makes
about 13: 5 to 7 MiB per 10,000 steps.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from natdgp.run.local_training import train
from natdgp.run.run_session import new_run
from natdgp.settings.experiment import read_experiment

REPOSITORY = Path(__file__).parent.parent
PERIOD = 250
"""Steps between validations, each with a checkpoint."""

ROWS = 20
"""Lines of the table."""


@dataclass(frozen=True)
class Reading:
    """What the process holds after a number of steps."""

    steps: int
    megabytes: float
    files: int
    milliseconds: float
    """Per training step since the last reading, validation and checkpoint not counted."""


class Meter:
    """Reads the process after each validation."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self._process = psutil.Process()
        self._began = time.perf_counter()
        self._training = 0.0

    def status(self, status: str) -> None:
        if status == "training":
            self._began = time.perf_counter()

    def training(self, steps: int, metrics: Mapping[str, float]) -> None:
        self._training += time.perf_counter() - self._began

    def validation(self, steps: int, metrics: Mapping[str, float]) -> None:
        reading = Reading(
            steps,
            self._process.memory_info().rss / 2**20,
            self._process.num_fds(),
            1000 * self._training / PERIOD,
        )
        self.readings.append(reading)
        self._training = 0.0


def soak(steps: int) -> list[Reading]:
    """Readings of a run of so many steps."""
    experiment = read_experiment(
        REPOSITORY / "experiments/flights/const.yaml",
        [
            f"searcher.max_length.batches={steps}",
            f"min_validation_period.batches={PERIOD}",
            f"min_checkpoint_period.batches={PERIOD}",
            "hyperparameters.global_batch_size=128",
            "hyperparameters.model.inducing_points=20",
            "hyperparameters.evaluation.num_samples=2",
            "data.rows=5000",
        ],
    )
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        train(experiment, new_run(experiment, REPOSITORY, Path(folder) / "run"), meter)
    return meter.readings


def growth(steps: Sequence[int], values: Sequence[float]) -> float:
    """Of a straight line through the second half of the values, per 10,000 steps."""
    half = len(steps) // 2
    slope, _ = np.polyfit(steps[half:], values[half:], 1)
    return 10_000 * float(slope)


def plot(readings: Sequence[Reading], path: Path) -> None:
    import matplotlib  # comes with determined; imported here, for plots alone

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [one.steps for one in readings]
    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(7, 7))
    for axis, name, values in zip(
        axes,
        ("resident memory, MiB", "open files", "ms per step"),
        (
            [one.megabytes for one in readings],
            [one.files for one in readings],
            [one.milliseconds for one in readings],
        ),
        strict=True,
    ):
        axis.plot(steps, values)
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("steps")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--plot", type=Path)
    parsed = parser.parse_args()
    began = time.perf_counter()
    readings = soak(parsed.steps)
    print("  steps   memory MiB   open files   ms per step")
    for one in readings[:: max(1, len(readings) // ROWS)]:
        print(
            f"{one.steps:7,d}   {one.megabytes:10.1f}   {one.files:10d}   {one.milliseconds:11.2f}"
        )
    steps = [one.steps for one in readings]
    for name, values in (
        ("MiB", [one.megabytes for one in readings]),
        ("open files", [float(one.files) for one in readings]),
        ("ms per step", [one.milliseconds for one in readings]),
    ):
        print(f"growth in the second half, per 10,000 steps: {growth(steps, values):+.3f} {name}")
    print(f"{time.perf_counter() - began:.0f} s in all")
    if parsed.plot is not None:
        plot(readings, parsed.plot)


if __name__ == "__main__":
    main()
