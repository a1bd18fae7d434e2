from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from natdgp.settings.searchers import Searcher

READ = TypeAdapter[Any](Searcher).validate_python
LENGTH = {"metric": "val_nlpd", "max_length": {"batches": 64}}
HALVING = {**LENGTH, "max_time": 64, "time_metric": "batches", "max_trials": 8}
VALID: dict[str, dict[str, Any]] = {
    "single": LENGTH,
    "random": {**LENGTH, "max_trials": 4},
    "grid": LENGTH,
    "async_halving": {**HALVING, "num_rungs": 3},
    "adaptive_asha": HALVING,
}


@pytest.mark.parametrize("name", VALID)
def test_every_searcher_of_determined_is_known_by_the_fields_it_requires(name: str) -> None:
    assert READ({"name": name, **VALID[name]}).name == name
    for field in VALID[name]:
        with pytest.raises(ValidationError, match=rf"{field}\n  Field required"):
            READ({"name": name, **VALID[name], field: None})


def test_defaults_are_the_masters() -> None:
    searcher = READ({"name": "adaptive_asha", **HALVING})
    assert (searcher.divisor, searcher.max_rungs, searcher.mode) == (4.0, 5, "standard")
    assert (searcher.max_concurrent_trials, searcher.bracket_rungs) == (16, ())
    assert (searcher.source_trial_id, searcher.stop_once) == (None, None)
