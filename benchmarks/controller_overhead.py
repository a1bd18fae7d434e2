"""What the engine's loop costs around the step: a run of `natdgp train` against bare `model.fit`.

Both sides train the same model from the same pipeline on the flights, in turn, in one process;
the first report of each run is left out (tracing). Prints milliseconds per step, medians over
reports of 25 steps, and the ratio.

    python benchmarks/controller_overhead.py [--rounds 3] [--steps 300]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from natdgp.run.local_training import train
from natdgp.run.run_session import new_run
from natdgp.settings.experiment import Experiment, read_experiment
from natdgp.training.task import Task

REPOSITORY = Path(__file__).parent.parent
REPORT = 25


class Stopwatch:
    """Milliseconds per step between consecutive reports of training."""

    def __init__(self) -> None:
        self._last: float | None = None
        self.milliseconds: list[float] = []

    def status(self, status: str) -> None:
        pass

    def training(self, steps: int, metrics: Mapping[str, float]) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self.milliseconds.append(1000 * (now - self._last) / REPORT)
        self._last = now

    def validation(self, steps: int, metrics: Mapping[str, float]) -> None:
        self._last = None


class KerasStopwatch(tf.keras.callbacks.Callback):
    """The same for bare Keras."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self._stopwatch = stopwatch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if (batch + 1) % REPORT == 0:
            self._stopwatch.training(batch + 1, {})


def through_the_loop(experiment: Experiment, folder: Path) -> list[float]:
    """A whole run, as `natdgp train` makes it."""
    stopwatch = Stopwatch()
    train(experiment, new_run(experiment, REPOSITORY, folder), stopwatch)
    return stopwatch.milliseconds


def bare(experiment: Experiment, steps: int) -> list[float]:
    """The same model and pipeline under Keras alone."""
    task = Task(experiment.settings, seed=experiment.seed)
    model = task.compiled_model()
    stopwatch = Stopwatch()
    model.fit(
        task.training_data(0),
        steps_per_epoch=steps,
        callbacks=[KerasStopwatch(stopwatch)],
        verbose=0,
    )
    return stopwatch.milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parsed = parser.parse_args()
    experiment = read_experiment(
        REPOSITORY / "experiments/flights/const.yaml",
        [
            f"searcher.max_length.batches={parsed.steps}",
            f"min_validation_period.batches={parsed.steps}",
            f"min_checkpoint_period.batches={parsed.steps}",
            f"scheduling_unit={REPORT}",
        ],
    )
    loop: list[float] = []
    keras: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(parsed.rounds):
            loop += through_the_loop(experiment, Path(folder) / str(number))
            keras += bare(experiment, parsed.steps)
    ours, theirs = statistics.median(loop), statistics.median(keras)
    print(f"the engine's loop        {ours:7.2f} ms per step")
    print(f"bare model.fit           {theirs:7.2f} ms per step")
    print(f"ratio                    {ours / theirs:7.3f}")


if __name__ == "__main__":
    main()
