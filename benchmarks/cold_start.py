"""Natural gradients or Adam from a cold start: test NLPD against steps and against seconds.

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --sets kin8nm --steps 300 --seeds 0 --rows validation \\
        --arm layers=none --arm "layers=all gamma=0.5 inner_q_sqrt_scale=0.1 inner_max_kl=1"

Two layers, M = 100, batch 1000, one Monte-Carlo sample, Adam at a constant 0.01 unless an arm says
otherwise. An arm is a way to train: which layers' q(u) natural gradients step, and how. All arms of
a seed start at the same parameters (an arm may start the inner q_sqrt at another size), and see the
same batches and the same sampling noise. Given `--arm`, only those run; otherwise those of `ARMS`.

Arms take turns of at most 50 steps, so that whatever else the machine does falls on all of them.
Seconds are those of the steps, reading of batches included; tracing (the first step) and evaluation
are left out. NLPD is in the units of y, over 50 samples; lower is better. With `--curves FILE`
every finished run is kept as a line of JSON, and those that FILE holds are not run again. Folder
and layout of the data are those of `uci_accuracy.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from natdgp import NaturalGradient
from natdgp.data.pipeline import evaluation_dataset, training_dataset
from natdgp.data.prepare import Prepared, prepare
from natdgp.models.builder import TaskShape
from natdgp.natgrad.step_choice import PositiveDefinite
from natdgp.settings.schema import Settings
from natdgp.training.assembly import build_optimizers, build_training_model
from natdgp.training.schedules import gamma_at
from uci_accuracy import REPOSITORY, as_parquet

SETS = {"kin8nm": 2000, "protein": 1000}
"""Sets and the steps on each."""

TURN = 50
EVALUATED = (10, 20, 50, 100, 200, 300, 500, 700, 1000, 1400, 2000, 3000, 4000)
TABULATED = (50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True)
class Arm:
    """A way to train."""

    layers: str = "last"
    """Which q(u) natural gradients step: `none` (Adam for everything), `last` or `all`."""
    gamma: float = 0.1
    gamma_initial: float | None = None
    """Step length at step 0, rising to gamma over ramp_steps; None for no ramp."""
    ramp_steps: int = 0
    inner_gamma: float | None = None
    """Step length of the inner layer; None for that of the last layer."""
    inner_max_kl: float | None = None
    """Trust region of the inner layer's step."""
    positive_definite: PositiveDefinite = "fallback"
    inner_q_sqrt_scale: float = 1e-5
    learning_rate: float = 0.01
    """Of Adam."""

    @classmethod
    def parse(cls, text: str) -> Arm:
        """The arm of a text like `layers=all gamma=0.5`.

        :raises ValueError: for a field that no arm has, or a value that does not fit it.
        """
        types = {field.name: str(field.type) for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for part in text.split():
            name, _, value = part.partition("=")
            if name not in types:
                raise ValueError(f"{name!r} is no field of an arm; choose from {', '.join(types)}")
            kind = types[name].split()[0]
            values[name] = {"int": int, "float": float}.get(kind, str)(value)
        return cls(**values)

    def __str__(self) -> str:
        """The text that :meth:`parse` reads: what differs from the defaults, and `layers`."""
        return " ".join(
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if field.name == "layers" or getattr(self, field.name) != field.default
        )


ARMS = {
    "Adam": Arm("none"),
    "Adam, rate 0.03": Arm("none", learning_rate=0.03),
    "last layer": Arm("last"),
    "last layer, rate 0.03": Arm("last", learning_rate=0.03),
    "all layers": Arm("all", inner_q_sqrt_scale=0.1),
    "all layers, guaranteed": Arm("all", inner_q_sqrt_scale=0.1, positive_definite="guaranteed"),
    "all layers, falling gamma, rate 0.03": Arm(
        "all",
        gamma=0.02,
        gamma_initial=0.1,
        ramp_steps=500,
        inner_q_sqrt_scale=0.1,
        learning_rate=0.03,
    ),
    "all layers, inner gamma 0.02, rate 0.03": Arm(
        "all", inner_gamma=0.02, inner_q_sqrt_scale=0.1, learning_rate=0.03
    ),
}


class Run:
    """One arm on one set with one seed, going."""

    def __init__(self, arm: Arm, data: Prepared, seed: int, rows: str) -> None:
        """:param rows: `test` or `validation`: the rows to evaluate."""
        self.arm = arm
        settings = Settings.read(
            {
                "global_batch_size": 1000,
                "model": {
                    "layers": 2,
                    "inducing_points": 100,
                    "inner_q_sqrt_scale": arm.inner_q_sqrt_scale,
                },
                "natural_gradient": {
                    "layers": arm.layers,
                    "gamma": arm.gamma if arm.inner_gamma is None else [arm.inner_gamma, arm.gamma],
                    "gamma_initial": arm.gamma_initial,
                    "ramp_steps": arm.ramp_steps,
                },
                "adam": {"learning_rate": arm.learning_rate},
                "evaluation": {"num_samples": 50, "batch_size": 1000},
            },
            {"source": "flights"},  # not read here
        )
        self._settings = settings
        train = data.train
        shape = TaskShape(len(train), train.X.shape[1], train.Y.shape[1])
        self._model = build_training_model(
            settings, shape, data.scaling.y_std, seed=seed, X=train.X
        )
        self._compile()
        self._batches = iter(
            training_dataset(train, global_batch_size=1000, seed=seed, start_step=0)
        )
        self._evaluated = evaluation_dataset(getattr(data, rows), global_batch_size=1000)
        self._train = tf.function(self._model.train_step)
        self._test = tf.function(self._model.test_step, reduce_retracing=True)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[tuple[int, float, float]] = []  # step, seconds, NLPD
        self.counts: dict[str, int] = {}
        self.broken: str | None = None

    def _compile(self) -> None:
        """As the trial does, but for options that may differ between layers."""
        arm, model = self.arm, self._model
        optimizers = build_optimizers(self._settings, model)
        self._natural: list[NaturalGradient] = [
            NaturalGradient(
                optimizer.gamma,
                positive_definite=arm.positive_definite,
                max_kl=None if layer is model.deep_gp.f_layers[-1] else arm.inner_max_kl,
            )
            for layer, optimizer in zip(model.natgrad_layers, optimizers, strict=False)
        ]
        model.compile(optimizer=[*self._natural, optimizers[-1]])

    def advance(self, until: int) -> None:
        """Train up to a step; a breakdown ends the run."""
        while self.step < until and self.broken is None:
            self._set_gamma()
            start = time.perf_counter()
            try:
                reports = self._train(next(self._batches))
            except tf.errors.InvalidArgumentError as error:
                self.broken = f"step {self.step}: {str(error).splitlines()[0]}"
                return
            if self.step > 0:  # the first step traces
                self.seconds += time.perf_counter() - start
            self.step += 1
        if self.broken is None:
            self.counts = {
                name.removeprefix("natgrad_"): int(value)
                for name, value in reports.items()
                if name.startswith("natgrad_")
            }

    def _set_gamma(self) -> None:
        """As the trial's callback does before every step."""
        for position, optimizer in enumerate(self._natural):
            optimizer.gamma = gamma_at(self._settings.natural_gradient, self.step, position)

    def evaluate(self) -> None:
        """Add a point to the curve; NaN from a breakdown on."""
        nlpd = math.nan
        if self.broken is None:
            self._model.reset_metrics()
            for batch in self._evaluated:
                figures = self._test(batch)
            nlpd = float(figures["nlpd"])
            if not math.isfinite(nlpd):
                self.broken = f"step {self.step}: NLPD is {nlpd}"
        self.curve.append((self.step, self.seconds, nlpd))


@dataclass(frozen=True)
class Curve:
    """A run, over."""

    set: str
    rows: str
    seed: int
    steps: int
    arm: str
    points: tuple[tuple[int, float, float], ...]
    """(step, seconds, NLPD)"""
    counts: dict[str, int]
    """What became of the natural-gradient steps of single latent GPs."""
    broken: str | None

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        return self.set, self.rows, self.seed, self.steps, self.arm

    def at(self, step: int) -> tuple[float, float]:
        """Seconds and NLPD after a step; NaN if it was not reached."""
        return next(((s, nlpd) for at, s, nlpd in self.points if at == step), (math.nan, math.nan))


def train(
    arms: Sequence[Arm], data: Prepared, name: str, rows: str, seed: int, steps: int
) -> list[Curve]:
    """Run arms in turns."""
    runs = [Run(arm, data, seed, rows) for arm in arms]
    evaluated = sorted({step for step in EVALUATED if step < steps} | {steps})
    stops = sorted({*range(TURN, steps, TURN), *evaluated})
    for stop in stops:
        for run in runs:
            run.advance(stop)
            if stop in evaluated:
                run.evaluate()
    return [
        Curve(name, rows, seed, steps, str(run.arm), tuple(run.curve), run.counts, run.broken)
        for run in runs
    ]


def read_curves(file: Path | None) -> list[Curve]:
    if file is None or not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    curves = [Curve(**json.loads(line)) for line in lines]
    return [
        dataclasses.replace(curve, points=tuple((s, t, n) for s, t, n in curve.points))
        for curve in curves
    ]


def mean_over_seeds(curves: Iterable[Curve], step: int) -> tuple[float, float]:
    """Mean seconds and mean NLPD."""
    values = [curve.at(step) for curve in curves]
    seconds, nlpd = zip(*values, strict=True)
    return statistics.fmean(seconds), statistics.fmean(nlpd)


def table(title: str, arms: dict[str, Arm], curves: Sequence[Curve]) -> Table:
    """NLPD (mean over seeds, and half the range between them) and seconds at the steps."""
    result = Table(title=title)
    result.add_column("arm")
    steps = [step for step in TABULATED if step <= curves[0].steps]
    for step in steps:
        result.add_column(f"{step}", justify="right")
    for heading in ("corrected", "shortened", "refused"):
        result.add_column(heading, justify="right")
    for label, arm in arms.items():
        of_arm = [curve for curve in curves if curve.arm == str(arm)]
        cells = []
        for step in steps:
            seconds, nlpd = mean_over_seeds(of_arm, step)
            each = [curve.at(step)[1] for curve in of_arm]
            spread = f" ±{(max(each) - min(each)) / 2:.3f}" if len(each) > 1 else ""
            cells.append(f"{nlpd:.3f}{spread} ({seconds:.1f} s)")
        sums = [
            str(sum(curve.counts.get(name, 0) for curve in of_arm) // len(of_arm))
            for name in ("corrected", "shortened", "refused")
        ]
        result.add_row(label, *cells, *sums)
    return result


def plot(file: Path, arms: dict[str, Arm], by_set: dict[str, list[Curve]]) -> None:
    """NLPD against steps (left) and seconds (right), a row for each set, means over seeds."""
    import matplotlib  # comes with determined; imported here, for plots alone

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(
        len(by_set), 2, figsize=(11, 3.9 * len(by_set)), squeeze=False, sharey="row"
    )
    for row, (name, curves) in zip(axes, by_set.items(), strict=True):
        finals = []
        for number, (label, arm) in enumerate(arms.items()):
            of_arm = [curve for curve in curves if curve.arm == str(arm)]
            if not of_arm:
                continue
            steps = [step for step, _, _ in of_arm[0].points]
            means = [mean_over_seeds(of_arm, step) for step in steps]
            colour = f"C{number}"
            for axis, x in zip(row, (steps, [s for s, _ in means]), strict=True):
                axis.plot(x, [nlpd for _, nlpd in means], color=colour, label=label, linewidth=1.6)
            finals += [nlpd for _, nlpd in means]
        finite = [value for value in finals if math.isfinite(value)]
        # The worst points, first steps and breakdowns, would press all others together.
        low, high = min(finite), float(np.quantile(finite, 0.85))
        for axis, unit in zip(row, ("steps", "seconds of training"), strict=True):
            axis.set_xscale("log")
            axis.set_xlabel(unit)
            axis.set_ylim(low - 0.03 * (high - low), high)
            axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            axis.xaxis.set_minor_formatter(ticker.NullFormatter())
            axis.grid(alpha=0.3, which="both", linewidth=0.5)
        row[0].set_ylabel(f"{name}: {curves[0].rows} NLPD")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), metavar="SET")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "uci")
    parser.add_argument("--steps", type=int, help=f"by default {SETS}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rows", choices=["test", "validation"], default="test")
    parser.add_argument("--arm", type=Arm.parse, action="append", metavar="'FIELD=VALUE ...'")
    parser.add_argument("--curves", type=Path, help="keeps finished runs")
    parser.add_argument("--plot", type=Path, help="where the plot goes, e.g. cold_start.png")
    given = parser.parse_args()
    if not given.data.is_dir():
        print(f"skipped: no UCI sets at {given.data} (--data names their folder)")
        return
    tf.get_logger().setLevel("ERROR")  # each run traces the same methods of its own model
    arms = {str(arm): arm for arm in given.arm} if given.arm else ARMS
    kept = read_curves(given.curves)
    by_set: dict[str, list[Curve]] = {}
    for name in given.sets:
        with tempfile.TemporaryDirectory() as scratch:
            parquet = Path(scratch) / f"{name}.parquet"
            as_parquet(given.data / name, parquet)
            source = {"source": "parquet", "path": str(parquet), "target": ["y"]}
            settings = Settings.read(
                {"global_batch_size": 1000}, {**source, "split": {"column": "part"}}
            )
            data = prepare(settings.data, "float64")
        by_set[name] = []
        steps = given.steps or SETS.get(name, 2000)
        for seed in given.seeds:
            wanted = {(name, given.rows, seed, steps, str(a)): a for a in arms.values()}
            done = [curve for curve in kept if curve.key in wanted]
            missing = [arm for key, arm in wanted.items() if key not in {c.key for c in done}]
            new = train(missing, data, name, given.rows, seed, steps)
            for curve in new:
                if curve.broken:
                    print(f"{curve.set}, seed {seed}, {curve.arm}: broke down at {curve.broken}")
            if given.curves is not None:
                with given.curves.open("a", encoding="utf-8") as stream:
                    stream.writelines(json.dumps(dataclasses.asdict(c)) + "\n" for c in new)
            by_set[name] += [*done, *new]
        title = f"{name}: {given.rows} NLPD after steps (seconds), {len(given.seeds)} seed(s)"
        Console(width=220).print(table(title, arms, by_set[name]))
    if given.plot is not None:
        plot(given.plot, arms, by_set)


if __name__ == "__main__":
    main()
