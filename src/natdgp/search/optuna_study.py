"""A search in Optuna's terms: `search.db`, a study, and `search.html`, its plots."""

from __future__ import annotations

import html
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any, Final

import optuna
from optuna import distributions, visualization
from optuna.exceptions import StorageInternalError
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from natdgp.run.durable_files import NotSaved, write_whole
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
    try:
        with tempfile.TemporaryDirectory() as place:
            file = Path(place, "study")
            storage = RDBStorage(f"sqlite:///{file}")
            study = _study_of(state, storage)
            study.add_trials([_frozen(state, trial, trial.status) for trial in state.trials])
            storage.engine.dispose()
            write_whole(folder.database, file.read_bytes())
    except (SQLAlchemyError, StorageInternalError) as error:
        raise NotSaved(f"{tempfile.gettempdir()} cannot be written: {error}") from error


def _study_of(state: SearchState, storage: RDBStorage | None = None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    smaller, name = state.search.searcher.smaller_is_better, state.search.config["name"]
    return optuna.create_study(
        storage=storage, study_name=name, direction="minimize" if smaller else "maximize"
    )


def _frozen(state: SearchState, trial: Trial, status: str) -> FrozenTrial:
    """A trial as it stands, in the state of Optuna's that is like a status."""
    _, value = state.best_of(trial)
    domains = dict(zip(trial.searched, state.search.space.domains.values(), strict=True))
    return create_trial(
        state=_STATES[status],
        value=value if status in ("completed", "stopped") else None,
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


def _figures(study: optuna.Study, metric: str) -> dict[str, Any]:
    """Plotly's figures, by what they show."""
    with warnings.catch_warnings():  # where trials are too few or too alike, which the plot shows
        warnings.filterwarnings("ignore", ".*importances will be equal", UserWarning)
        importances = visualization.plot_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target_name=metric
        )
    history = visualization.plot_optimization_history(study, target_name=metric)
    rungs = visualization.plot_intermediate_values(study)
    rungs.update_layout(yaxis_title=metric, xaxis_title="step")
    parallel = visualization.plot_parallel_coordinate(study, target_name=metric)
    return {
        "History: the best value of every trial, in the order of the trials": history,
        "Rungs: values along training; a stopped trial ends at its rung": rungs,
        "Importances: how far each hyperparameter alone tells the better trials from all others "
        "(PED-ANOVA; Watanabe et al. 2023), by the best values, however early a trial was "
        "stopped": importances,
        "Parallel coordinates: every trial as a line through its hyperparameters": parallel,
    }


def write_page(folder: SearchFolder, state: SearchState) -> None:
    """Write the page, which needs no network, whole or not at all.

    It shows all trials that have a value, which Optuna plots if they count as complete.

    :raises NotSaved: if the disk refuses.
    """
    study = _study_of(state)
    shown = [trial for trial in state.trials if state.best_of(trial)[1] is not None]
    study.add_trials([_frozen(state, trial, "completed") for trial in shown])
    name = html.escape(study.study_name)
    parts = [f"<!doctype html><html><head><meta charset='utf-8'><title>{name}</title></head><body>"]
    parts.append(f"<h1>{name}</h1>")
    if len(shown) < 2 or not shown[0].searched:
        parts.append("<p>Plots need two trials with a value and something to search over.</p>")
    else:
        figures = _figures(study, state.search.searcher.metric)
        for number, (title, figure) in enumerate(figures.items()):
            parts.append(f"<h2>{title}</h2>")
            parts.append(figure.to_html(full_html=False, include_plotlyjs=number == 0))
    parts.append("</body></html>")
    write_whole(folder.page, "\n".join(parts))
