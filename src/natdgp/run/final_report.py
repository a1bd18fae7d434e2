"""The end of a run: test figures of the model that it trained, the summary and the report."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.console import Console

from natdgp.results.baselines import baseline_figures
from natdgp.results.report import figures_table, print_whereabouts
from natdgp.results.trained import TrainedModel
from natdgp.run.local_training import Outcome
from natdgp.run.run_folder import RunFolder, write_json
from natdgp.training.diagnosis import TrainingFailure
from natdgp.training.model import DeepGPModel


def conclude(
    console: Console,
    folder: RunFolder,
    outcome: Outcome,
    seconds: float,
    *,
    examples_per_second: float,
) -> None:
    """Judge the best checkpoint's model on test rows, and write and print the outcome.

    It is the model that was trained, whatever its trial has made it of, with the figures of the
    validation data that it was validated on.

    :param console: where the report goes.
    :param folder: the run's.
    :param outcome: of the training.
    :param seconds: wall time of the run so far, over all its sessions.
    :param examples_per_second: while training.
    :raises TrainingFailure: if a figure is not finite; nothing is written or printed.
    """
    prepared, model = outcome.task.prepared, outcome.model
    test: Mapping[str, float] = {}
    baselines: Mapping[str, Mapping[str, float]] = {}
    if len(prepared.test) and isinstance(model, DeepGPModel):
        test = _figures(model, outcome)
        baselines = baseline_figures(
            prepared.train, prepared.test, prepared.scaling, model.deep_gp.likelihood
        )
    figures = {name: value for name, value in outcome.validation.items() if name[:4] == "val_"}
    figures |= {f"test_{name}": value for name, value in test.items()}
    for name, value in figures.items():
        if not math.isfinite(value):
            raise TrainingFailure(
                f"{name} of the best checkpoint is {value}. Lower "
                "hyperparameters.natural_gradient.gamma or hyperparameters.adam.learning_rate."
            )
    best = outcome.best.relative_to(folder.root)
    summary = {
        **figures,
        "steps": outcome.steps,
        "seconds": seconds,
        "examples_per_second": examples_per_second,
        "best_checkpoint": str(best),
        **({"baselines": baselines} if baselines else {}),
    }
    write_json(folder.summary, summary)
    if test:
        title = f"Test figures on {len(prepared.test):,} rows ({', '.join(prepared.targets)})"
        console.print(figures_table(title, {"deep GP": test, **baselines}))
    elif len(prepared.test):
        console.print(
            f"There are no test figures: build_model made a {type(model).__name__}, and not a deep "
            "GP of natdgp's, whose predictions could be judged."
        )
    else:
        console.print("No rows are held out for a test (data.split.test is 0).")
    print_whereabouts(console, folder.shown, best)


def _figures(model: DeepGPModel, outcome: Outcome) -> dict[str, float]:
    """Of all test rows in this process: the other ranks, if there were any, have gone."""
    alone = DeepGPModel(
        model.deep_gp,
        natgrad_layers=(),
        num_samples=1,
        evaluation_samples=model.evaluation_samples,
        y_std=outcome.task.record.scaling.y_std,
    )
    trained = TrainedModel(alone, outcome.task.model_record(alone))
    return trained.evaluate_rows(outcome.task.prepared.test)
