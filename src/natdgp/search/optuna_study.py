"""Searches and their trials in Optuna's terms."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from natdgp.search.decisions import Ending
from natdgp.search.progress import Progress, Trial
from natdgp.settings import Search
from natdgp.settings.domains import Categorical, Domain, Double, Int, Log
from natdgp.settings.space import place_of, value_at

STATES: Final = {
    None: TrialState.RUNNING,
    Ending.COMPLETED: TrialState.COMPLETE,
    Ending.STOPPED: TrialState.PRUNED,
    Ending.INVALID: TrialState.FAIL,
    Ending.FAILED: TrialState.FAIL,
}


def direction_of(search: Search) -> StudyDirection:
    """Optuna's word for smaller_is_better."""
    smaller = search.searcher.smaller_is_better
    return StudyDirection.MINIMIZE if smaller else StudyDirection.MAXIMIZE


def frozen(progress: Progress, trial: Trial, state: TrialState) -> FrozenTrial:
    """A trial as it stands, in a state of Optuna's; one without a number to show has failed."""
    value = progress.best_value(trial)
    finished = state in (TrialState.COMPLETE, TrialState.PRUNED)
    if finished and (value is None or not math.isfinite(value)):
        state, finished = TrialState.FAIL, False
    searched = progress.search.space.searched
    values = {name: value_at(trial.point, place_of(name)) for name in searched}
    return create_trial(
        state=state,
        value=value if finished else None,
        params={short(name): _param(domain, values[name]) for name, domain in searched.items()},
        distributions={short(name): _distribution(domain) for name, domain in searched.items()},
        intermediate_values=trial.values,
        user_attrs={"reason": trial.reason} if trial.reason else {},
    )


def short(name: str) -> str:
    """A hyperparameter by its path among the hyperparameters."""
    return name.partition(".")[2]


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Int):
        return IntDistribution(domain.minval, domain.maxval)
    if isinstance(domain, Double | Log):
        low, high = sorted(domain.ends)
        return FloatDistribution(low, high, log=isinstance(domain, Log))
    assert isinstance(domain, Categorical), "constants are not searched"
    return CategoricalDistribution(tuple(dict.fromkeys(map(_word, domain.vals))))


def _param(domain: Domain, value: Any) -> Any:
    if isinstance(domain, Categorical):
        return _word(value)
    if isinstance(domain, Int):
        return value
    return min(max(value, min(domain.ends)), max(domain.ends))  # a grid's end may be rounded


def _word(value: Any) -> Any:
    """A value of a kind that Optuna's categories may have."""
    return json.dumps(value) if isinstance(value, list | dict | tuple) else value
