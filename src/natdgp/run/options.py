"""The options that every command has that trains."""

from __future__ import annotations

import argparse
from pathlib import Path


def options_of_training() -> argparse.ArgumentParser:
    """Without a description of its own: a parent of the commands' parsers."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="an experiment file")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with what was interrupted in this folder, in its terms",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="the folder to write to; it must not exist (default: runs/NAME, or runs/NAME-2, ...)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="overrides",
        help="change a field of the file, e.g. --set hyperparameters.model.layers=3; repeatable",
    )
    parser.add_argument("--seed", type=int, help="reproducibility.experiment_seed")
    parser.add_argument(
        "--slots",
        type=int,
        metavar="K",
        help="train in K processes that share each batch, one to a GPU or to a part of the cores "
        "(default: resources.slots_per_trial if there are as many GPUs, else 1)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="auto (GPUs if there are any), cpu, gpu, or gpu:N for a single one (default: auto)",
    )
    parser.add_argument("--no-progress", action="store_true", help="plain lines even on a terminal")
    return parser


def overrides_of(parsed: argparse.Namespace) -> list[str]:
    """What the command line says about fields of the file, each `path=value`."""
    options = {
        "seed": "reproducibility.experiment_seed",
        "slots": "resources.slots_per_trial",
        "trials": "searcher.max_trials",
    }
    given = ((path, getattr(parsed, option, None)) for option, path in options.items())
    return [*parsed.overrides, *(f"{path}={value}" for path, value in given if value is not None)]
