"""Test log-likelihood on UCI regression sets, split 0, beside published figures.

Two layers, M = 100, batch 1000, natural gradients on the last layer and Adam for the rest: the
setting of the published rows. One twentieth of the published training rows is held out to choose
the checkpoint, so the models here see 5% fewer rows than those of the papers. Each set is a whole
`natdgp train` run; the table also gives its time.

The data are not part of the repository: pass their folder (one sub-folder per set, laid out as
`data.txt`, `index_features.txt`, `index_target.txt`, `index_train_0.txt`, `index_test_0.txt`).

    python benchmarks/uci_accuracy.py [--data ../shared/uci] [--steps 3000] [SET ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from natdgp.run.run_session import new_run, run_and_report
from natdgp.settings.experiment import read_experiment

REPOSITORY = Path(__file__).parent.parent
SETS = ("concrete", "energy", "kin8nm", "power", "protein")

PUBLISHED = {
    # Test log-likelihood, two layers: Havasi et al. 2018 (re-run of DSVI; read off a figure), and
    # bayesian_benchmarks (natural gradient 0.1 on the last layer + Adam 0.01).
    "concrete": (-3.09, -3.175),
    "energy": (-0.71, -0.721),
    "kin8nm": (1.33, None),
    "power": (-2.77, -2.790),
    "protein": (-2.79, -2.846),
}


def as_parquet(source: Path, target: Path) -> None:
    """One table of a set with its split 0 as a column."""
    data = np.loadtxt(source / "data.txt")
    features = np.loadtxt(source / "index_features.txt", dtype=int)
    y = data[:, np.loadtxt(source / "index_target.txt", dtype=int)]
    parts = np.full(len(data), "unused", dtype="<U10")
    train = np.loadtxt(source / "index_train_0.txt", dtype=int)
    parts[train] = "train"
    held_out = np.random.default_rng(0).permutation(train)[: max(len(train) // 20, 1)]
    parts[held_out] = "validation"
    parts[np.loadtxt(source / "index_test_0.txt", dtype=int)] = "test"
    used = parts != "unused"
    columns = {f"x{i}": data[used, column] for i, column in enumerate(features)}
    pl.DataFrame({**columns, "y": y[used], "part": parts[used]}).write_parquet(target)


def experiment(path: Path, steps: int) -> dict[str, object]:
    """Plain values of the experiment on one set."""
    return {
        "name": path.stem,
        "entrypoint": "python3 -m determined.launch.horovod --autohorovod "
        "--trial trials.deep_gp:DeepGPTrial",
        "environment": {"image": "determinedai/tensorflow-ngc:0.38.1"},
        "searcher": {
            "name": "single",
            "metric": "val_nlpd",
            "smaller_is_better": True,
            "max_length": {"batches": steps},
        },
        "min_validation_period": {"batches": max(steps // 10, 1)},
        "scheduling_unit": 100,
        "data": {
            "source": "parquet",
            "path": str(path),
            "target": ["y"],
            "split": {"column": "part"},
        },
        "hyperparameters": {
            "global_batch_size": 1000,
            "model": {"layers": 2, "inducing_points": 100},
            "natural_gradient": {"gamma": 0.1, "gamma_initial": 1e-3, "ramp_steps": 100},
            "adam": {
                "learning_rate": 0.01,
                "schedule": {"name": "cosine", "decay_steps": steps, "alpha": 0.1},
            },
            "evaluation": {"num_samples": 128, "batch_size": 1000},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=SETS, metavar="SET")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "uci")
    parser.add_argument("--steps", type=int, default=3000)
    parsed = parser.parse_args()
    if not parsed.data.is_dir():
        print(f"skipped: no UCI sets at {parsed.data} (--data names their folder)")
        return
    table = Table(title="Test log-likelihood, split 0 (higher is better)")
    headings = "set", "natdgp", "RMSE", "95% coverage", "seconds", "Havasi et al.", "Salimbeni"
    for heading in headings:
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as scratch:
        for name in parsed.sets:
            parquet = Path(scratch) / f"{name}.parquet"
            as_parquet(parsed.data / name, parquet)
            file = Path(scratch) / f"{name}.yaml"
            with file.open("w", encoding="utf-8") as stream:
                YAML(typ="safe", pure=True).dump(experiment(parquet, parsed.steps), stream)
            folder = new_run(read_experiment(file), REPOSITORY, Path(scratch) / name)
            run_and_report(Console(stderr=True, highlight=False), folder, live=False)
            summary = json.loads(folder.summary.read_text(encoding="utf-8"))
            published = ["-" if value is None else f"{value:.3f}" for value in PUBLISHED[name]]
            table.add_row(
                name,
                f"{-summary['test_nlpd']:.3f}",
                f"{summary['test_rmse']:.4f}",
                f"{summary['test_coverage_95']:.3f}",
                f"{summary['seconds']:.0f}",
                *published,
            )
    Console(file=sys.stdout).print(table)


if __name__ == "__main__":
    main()
