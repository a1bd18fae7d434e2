"""A search in Optuna's terms: `search.db`, a study, and `search.html`, its plots."""

from __future__ import annotations

import contextlib
import html
import json
import math
import os
import sqlite3
import warnings
from collections.abc import Callable
from typing import Any, Final

import optuna
from optuna import distributions, visualization
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from natdgp.run.durable_files import NotSaved, saving, settle, write_whole
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_state import SearchState, Trial
from natdgp.settings.domains import Categorical, Domain, Double, Int, Log

_STATES: Final = {
    "open": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "invalid": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


def write_study(folder: SearchFolder, state: SearchState) -> None:
    """Write all trials, with their values along training, to an SQLite file, whole or not at all.

    :raises NotSaved: if the disk refuses.
    """
    storage = RDBStorage("sqlite://")  # in memory, where nothing is in the way
    study = _study_of(state, storage, state.search.config["name"])
    study.add_trials([_frozen(state, trial, _STATES[trial.status]) for trial in state.trials])
    aside = folder.database.with_name(f".{folder.database.name}.partial")
    memory = storage.engine.raw_connection()
    assert memory.driver_connection is not None, "just opened"
    with saving(folder.database):
        aside.unlink(missing_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(aside)) as file:
                memory.driver_connection.backup(file)
        except sqlite3.Error as error:
            aside.unlink(missing_ok=True)
            raise NotSaved(f"{folder.database} cannot be written: {error}") from error
        finally:
            memory.close()
            storage.engine.dispose()
        settle(aside)
        os.replace(aside, folder.database)
        settle(folder.root)


def _study_of(state: SearchState, storage: RDBStorage | None, name: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    smaller = state.search.searcher.smaller_is_better
    return optuna.create_study(
        storage=storage, study_name=name, direction="minimize" if smaller else "maximize"
    )


def _frozen(state: SearchState, trial: Trial, status: TrialState) -> FrozenTrial:
    """A trial as it stands, in a state of Optuna's; one without a number to show has failed."""
    _, value = state.best_of(trial)
    finished = status in (TrialState.COMPLETE, TrialState.PRUNED)
    if finished and (value is None or not math.isfinite(value)):
        status, finished = TrialState.FAIL, False
    domains = dict(zip(trial.searched, state.search.space.domains.values(), strict=True))
    return create_trial(
        state=status,
        value=value if finished else None,
        params={name: _param(domains[name], value) for name, value in trial.searched.items()},
        distributions={name: _distribution(domain) for name, domain in domains.items()},
        intermediate_values=trial.values,
        user_attrs={"reason": trial.reason} if trial.reason else {},
    )


def plain(value: Any) -> Any:
    """A value of a kind that Optuna's categories and a table's cells may have."""
    return json.dumps(value) if isinstance(value, list | dict | tuple) else value


def _distribution(domain: Domain) -> distributions.BaseDistribution:
    if isinstance(domain, Int):
        return distributions.IntDistribution(domain.minval, domain.maxval)
    if isinstance(domain, Double | Log):
        low, high = sorted(domain.ends)
        return distributions.FloatDistribution(low, high, log=isinstance(domain, Log))
    assert isinstance(domain, Categorical), "constants are not searched"
    return distributions.CategoricalDistribution(tuple(dict.fromkeys(map(plain, domain.vals))))


def _param(domain: Domain, value: Any) -> Any:
    if isinstance(domain, Double | Log):  # whose end may be rounded in a grid
        return min(max(value, min(domain.ends)), max(domain.ends))
    return plain(value)


def _rungs(study: optuna.Study, metric: str) -> Any:
    figure = visualization.plot_intermediate_values(study)
    return figure.update_layout(yaxis_title=metric, xaxis_title="step")


def _importances(study: optuna.Study, metric: str) -> Any:
    with warnings.catch_warnings():  # where trials are too few or too alike, which the plot shows
        warnings.filterwarnings("ignore", ".*importances will be equal", UserWarning)
        return visualization.plot_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target_name=metric
        )


PLOTS: Final[dict[str, tuple[Callable[[optuna.Study, str], Any], str]]] = {
    "History": (
        lambda study, metric: visualization.plot_optimization_history(study, target_name=metric),
        "The best value of every trial, in the order of the trials.",
    ),
    "Rungs": (_rungs, "Values along training; a stopped trial ends at its rung."),
    "Importances": (
        _importances,
        "How far each hyperparameter alone tells the better trials from all others (PED-ANOVA; "
        "Watanabe et al. 2023), by the best values: trials that were stopped early count as they "
        "were.",
    ),
    "Parallel coordinates": (
        lambda study, metric: visualization.plot_parallel_coordinate(study, target_name=metric),
        "Every trial as a line through its hyperparameters.",
    ),
}


def write_page(folder: SearchFolder, state: SearchState) -> None:
    """Write the page, which needs no network, whole or not at all.

    It shows all trials that have a value, which Optuna plots if they count as complete.

    :raises NotSaved: if the disk refuses.
    """
    metric, name = state.search.searcher.metric, html.escape(state.search.config["name"])
    study = _study_of(state, None, name)
    shown = (_frozen(state, trial, TrialState.COMPLETE) for trial in state.trials)
    study.add_trials([trial for trial in shown if trial.state is TrialState.COMPLETE])
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
