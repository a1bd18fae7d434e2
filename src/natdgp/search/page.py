"""`search.html`: the plots of a search on one page that needs no network."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable
from typing import Any, Final

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState
from optuna.visualization import (
    plot_intermediate_values,
    plot_optimization_history,
    plot_parallel_coordinate,
    plot_param_importances,
)

from natdgp.run.durable_files import write_whole
from natdgp.search.optuna_study import direction_of, frozen
from natdgp.search.progress import Progress
from natdgp.search.search_folder import SearchFolder

Plot = Callable[[optuna.Study, str], Any]


def _history(study: optuna.Study, metric: str) -> Any:
    return plot_optimization_history(study, target_name=metric)


def _rungs(study: optuna.Study, metric: str) -> Any:
    return plot_intermediate_values(study).update_layout(yaxis_title=metric, xaxis_title="step")


def _importances(study: optuna.Study, metric: str) -> Any:
    with warnings.catch_warnings():  # where trials are too few or too alike, which the plot shows
        warnings.filterwarnings("ignore", ".*importances will be equal", UserWarning)
        return plot_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target_name=metric
        )


def _parallel(study: optuna.Study, metric: str) -> Any:
    return plot_parallel_coordinate(study, target_name=metric)


PLOTS: Final[dict[str, tuple[Plot, str]]] = {
    "History": (_history, "The best value of every trial, in the order of the trials."),
    "Rungs": (_rungs, "Values along training; a stopped trial ends at its rung."),
    "Importances": (
        _importances,
        "How far each hyperparameter alone tells the better trials from all others (PED-ANOVA; "
        "Watanabe et al. 2023), by the best values: trials that were stopped early count as they "
        "were.",
    ),
    "Parallel coordinates": (_parallel, "Every trial as a line through its hyperparameters."),
}


def write_page(folder: SearchFolder, progress: Progress) -> None:
    """Write the page whole or not at all."""
    study = _study_of_values(progress)
    metric, name = progress.search.searcher.metric, html.escape(progress.search.config["name"])
    parts = [f"<!doctype html><html><head><meta charset='utf-8'><title>{name}</title></head><body>"]
    parts.append(f"<h1>{name}</h1>")
    library = True
    for title, (plot, explanation) in PLOTS.items():
        parts.append(f"<h2>{title}</h2><p>{html.escape(explanation)}</p>")
        if len(study.trials) < 2 or not study.trials[0].params:
            parts.append("<p>Needs two trials with a value and something to search over.</p>")
            continue
        figure = plot(study, metric)
        parts.append(figure.to_html(full_html=False, include_plotlyjs=library))
        library = False
    parts.append("</body></html>")
    write_whole(folder.page, "\n".join(parts))


def _study_of_values(progress: Progress) -> optuna.Study:
    """All trials that have a value, which Optuna plots if they count as complete."""
    study = optuna.create_study(direction=direction_of(progress.search))
    for trial in progress.trials:
        shown = frozen(progress, trial, TrialState.COMPLETE)
        if shown.state is TrialState.COMPLETE:
            study.add_trial(shown)
    return study
