from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from natdgp.settings import validate
from natdgp.settings.searchers import Searcher

LENGTH = {"max_length": {"batches": 64}}
HALVING = {**LENGTH, "max_time": 64, "time_metric": "batches", "max_trials": 8}
VALID: dict[str, dict[str, Any]] = {
    "single": LENGTH,
    "random": {**LENGTH, "max_trials": 4},
    "grid": LENGTH,
    "async_halving": {**HALVING, "num_rungs": 3},
    "adaptive_asha": HALVING,
}


def problems(searcher: dict[str, Any]) -> list[str]:
    config = {
        "name": "a",
        "entrypoint": "python3 -m determined.launch.horovod --trial trials.deep_gp:DeepGPTrial",
        "environment": {"image": "determinedai/tensorflow-ngc:0.38.1"},
        "searcher": {"metric": "val_nlpd", **searcher},
        "min_validation_period": {"batches": 1},
        "records_per_epoch": 800,
        "data": {"source": "flights"},
        "hyperparameters": {"global_batch_size": 8},
    }
    return [str(problem) for problem in validate(config)]


@pytest.mark.parametrize("name", VALID)
def test_every_searcher_of_determined_is_known(name: str) -> None:
    assert not problems({"name": name, **VALID[name]})


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name in VALID for field in [*VALID[name], "metric"]],
)
def test_a_required_field_is_missed(name: str, field: str) -> None:
    searcher = {"name": name, **VALID[name], field: None}
    (problem,) = problems(searcher)
    assert problem.startswith(f"searcher.{field}: required"), problem


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("random", {"max_trials": 0}, "searcher.max_trials: received 0; must be a whole number"),
        ("random", {"max_time": 64}, "searcher.max_time: received 64; there is no field max_time"),
        ("grid", {"max_trials": 4}, "searcher.max_trials: received 4; there is no field"),
        ("grid", {"max_concurrent_trials": -1}, "searcher.max_concurrent_trials: received -1"),
        ("adaptive_asha", {"divisor": 1}, "searcher.divisor: received 1; must be a number above 1"),
        ("adaptive_asha", {"mode": "agressive"}, "did you mean aggressive?"),
        ("adaptive_asha", {"max_rungs": 0}, "searcher.max_rungs: received 0"),
        ("adaptive_asha", {"bracket_rungs": [2, 0]}, "searcher.bracket_rungs.1: received 0"),
        ("adaptive_asha", {"num_rungs": 3}, "there is no field num_rungs"),
        ("adaptive_asha", {"time_metric": "records"}, "must be one of batches, epochs"),
        ("adaptive_asha", {"max_time": 32}, "set max_length: {batches: 32}"),
        ("adaptive_asha", {"max_length": {"epochs": 64}}, "set max_length: {batches: 64}"),
        ("async_halving", {"mode": "standard"}, "there is no field mode"),
        ("random", {"metric": "val_elbo_per_datum"}, "set smaller_is_better: false"),
        ("adaptive_simple", {}, "must be one of single, random, grid, async_halving"),
    ],
)
def test_a_wrong_field_is_told_with_its_remedy(
    name: str, fields: dict[str, Any], expected: str
) -> None:
    (problem,) = problems({"name": name, **VALID.get(name, LENGTH), **fields})
    assert expected in problem


def test_defaults_are_the_masters() -> None:
    searcher = TypeAdapter[Any](Searcher).validate_python(
        {"name": "adaptive_asha", "metric": "val_nlpd", **HALVING}
    )
    assert (searcher.divisor, searcher.max_rungs, searcher.mode) == (4.0, 5, "standard")
    assert (searcher.max_concurrent_trials, searcher.bracket_rungs) == (16, ())
    assert (searcher.source_trial_id, searcher.stop_once) == (None, None)
