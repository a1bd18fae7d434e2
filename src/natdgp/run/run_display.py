"""How a run looks while it goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SHORT = {
    "elbo_per_datum": "ELBO",
    "nlpd": "NLPD",
    "rmse": "RMSE",
    "crps": "CRPS",
    "coverage_95": "95% coverage",
    "accuracy": "accuracy",
}
"""Figures that are shown, those that a model has."""


class Display:
    """Shows step, ELBO, validation figures, examples per second and time left."""

    def __init__(
        self, console: Console, *, total_steps: int, start: int, batch_size: int, live: bool
    ) -> None:
        """:param console: where to write.
        :param total_steps: the run's length.
        :param start: the step it goes on from.
        :param batch_size: rows of a step.
        :param live: redraw one line; otherwise print a line per report.
        """
        self._console = console
        self._total = total_steps
        self._start = self._steps = start
        self._batch_size = batch_size
        self._live = live
        self._seconds = 0.0
        """Of training."""
        self._status = ""
        self._since = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not live,
        )
        self._task = self._progress.add_task("", total=total_steps, completed=start, figures="")

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @property
    def examples_per_second(self) -> float:
        """Training rows a second, validation and checkpoints not counted."""
        examples = (self._steps - self._start) * self._batch_size
        return examples / self._seconds if self._seconds else 0.0

    def status(self, status: str) -> None:
        """Note what the run turned to."""
        now = time.monotonic()
        if self._status == "training":
            self._seconds += now - self._since
        self._status, self._since = status, now
        self._progress.update(self._task, description=status)

    def training(self, steps: int, metrics: Mapping[str, float]) -> None:
        """Show the state after a workload."""
        self._steps = steps
        self.status(self._status)
        shown = "elbo_per_datum" if "elbo_per_datum" in metrics else "loss"
        rate = self.examples_per_second
        figures = f"{_SHORT.get(shown, shown)} {metrics[shown]:.4f}", f"{rate:,.0f} examples/s"
        self._progress.update(self._task, completed=steps, figures=", ".join(figures))
        if not self._live:
            left = (self._total - steps) * self._batch_size / rate if rate else 0.0
            line = (f"step {steps}/{self._total}", *figures, f"{left:.0f} s of training left")
            self._console.print("  ".join(line), soft_wrap=True)

    def validation(self, steps: int, metrics: Mapping[str, float]) -> None:
        """Show validation figures."""
        self.status(self._status)
        named = {name.removeprefix("val_"): value for name, value in metrics.items()}
        shown = [name for name in _SHORT if name in named and name != "elbo_per_datum"] or ["loss"]
        figures = "  ".join(f"{_SHORT.get(name, name)} {named[name]:.4f}" for name in shown)
        self._console.print(f"validation after step {steps}:  {figures}", soft_wrap=True)
