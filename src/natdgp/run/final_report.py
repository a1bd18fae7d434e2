"""The end of a run: test figures of its best checkpoint, the summary and the report."""

from __future__ import annotations

import math
from pathlib import Path

import determined as det
from rich.console import Console

from natdgp.data.prepare import prepare
from natdgp.results import baseline_figures, load
from natdgp.results.report import figures_table, print_whereabouts
from natdgp.run.run_folder import RunFolder, write_json
from natdgp.settings.schema import Settings


def conclude(
    console: Console,
    folder: RunFolder,
    settings: Settings,
    best: Path,
    *,
    steps: int,
    seconds: float,
    examples_per_second: float,
) -> None:
    """Judge the best checkpoint on validation and test rows, and write and print the outcome.

    :param console: where the report goes.
    :param folder: the run's.
    :param settings: the run's.
    :param best: the checkpoint with the best validation.
    :param steps: training steps of the run.
    :param seconds: wall time of the run so far, over all its sessions.
    :param examples_per_second: while training.
    :raises determined.InvalidHP: if a figure is not finite; nothing is written or printed.
    """
    prepared = prepare(settings.data, settings.model.dtype)
    trained = load(best)
    figures = {"val": trained.evaluate(prepared.validation)}
    if len(prepared.test):
        figures["test"] = trained.evaluate(prepared.test)
    named = {f"{part}_{name}": v for part, values in figures.items() for name, v in values.items()}
    for name, value in named.items():
        if not math.isfinite(value):
            raise det.InvalidHP(
                f"{name} of the best checkpoint is {value}. Lower "
                "hyperparameters.natural_gradient.gamma or hyperparameters.adam.learning_rate."
            )
    summary = {
        **named,
        "steps": steps,
        "seconds": seconds,
        "examples_per_second": examples_per_second,
        "best_checkpoint": str(best.relative_to(folder.root)),
    }
    baselines = {}
    if len(prepared.test):
        baselines = baseline_figures(prepared.train, prepared.test, prepared.scaling)
        summary["baselines"] = baselines
    write_json(folder.summary, summary)
    if len(prepared.test):
        title = f"Test figures on {len(prepared.test):,} rows ({', '.join(prepared.targets)})"
        console.print(figures_table(title, {"deep GP": figures["test"], **baselines}))
    else:
        console.print("No rows are held out for a test (data.split.test is 0).")
    print_whereabouts(console, folder.shown, best.relative_to(folder.root))
