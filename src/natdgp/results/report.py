"""The report at the end of a run: test figures beside baselines, and where everything is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

COLUMNS = {
    "rmse": "RMSE",
    "nlpd": "NLPD",
    "crps": "CRPS",
    "coverage_95": "95% coverage",
}
"""Headings of figures, those of the report first; in the units of the target, NLPD in nats."""


def figures_table(title: str, figures: Mapping[str, Mapping[str, float]]) -> Table:
    """A row for each model, and the figures that all of them have."""
    common = set.intersection(*(set(values) for values in figures.values()))
    shown = [name for name in COLUMNS if name in common] + sorted(
        name for name in common if name not in COLUMNS and not name.endswith("_standardised")
    )
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    for name in shown:
        table.add_column(COLUMNS.get(name, name), justify="right")
    for name, values in figures.items():
        table.add_row(name, *(f"{values[key]:.4f}" for key in shown))
    return table


def print_whereabouts(console: Console, root: Path, best: Path) -> None:
    """Say where everything was saved, and give the line that loads the model and predicts.

    :param root: the run's folder.
    :param best: the best checkpoint, relative to it.
    """
    console.print(f"Saved under {root}:", highlight=False, soft_wrap=True)
    console.print(f"  best checkpoint   {best}", highlight=False, soft_wrap=True)
    for name, what in {
        "summary.json": "figures",
        "metrics.jsonl": "every report",
        "config.yaml": "resolved configuration",
        "manifest.json": "versions, seed, machine, timings",
        "tensorboard": f"tensorboard --logdir {shlex.quote(str(root / 'tensorboard'))}",
    }.items():
        console.print(f"  {name:<17} {what}", highlight=False, soft_wrap=True)
    console.print("Load and predict:", highlight=False)
    console.print(
        f"  import natdgp; natdgp.load({str(root)!r}).predict(X).mean",
        highlight=False,
        soft_wrap=True,
    )
