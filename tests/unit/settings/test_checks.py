from __future__ import annotations

from typing import Any, get_args

import pytest

from natdgp.likelihoods.registry import LikelihoodSettings
from natdgp.settings.checks import (
    epochs_have_a_length,
    grids_can_be_counted,
    image_has_tensorflow,
    rungs_see_a_validation,
    slots_share_a_batch,
    trials_start_from_nothing,
)
from natdgp.settings.problems import groups
from natdgp.training.training_settings import LARGER_IS_BETTER, SelectionMetric


@pytest.mark.parametrize(
    "config",
    [
        {"searcher": {"max_length": {"epochs": 3}}},
        {"min_validation_period": {"epochs": 1}},
        {"min_checkpoint_period": {"epochs": 1}},
        {"searcher": {"time_metric": "epochs"}},
        {"hyperparameters": {"adam": {"schedule": {"name": "per_epoch", "factor": 0.9}}}},
    ],
)
def test_whatever_counts_epochs_needs_records_per_epoch(config: dict[str, Any]) -> None:
    (problem,) = epochs_have_a_length(config)
    assert (problem.path, problem.code) == ("records_per_epoch", "epochs-without-length")
    assert not list(epochs_have_a_length({**config, "records_per_epoch": 100}))


def test_batches_need_no_records_per_epoch() -> None:
    assert not list(epochs_have_a_length({"searcher": {"max_length": {"batches": 3}}}))


def _shared(rows: Any, slots: Any) -> dict[str, Any]:
    return {
        "hyperparameters": {"global_batch_size": rows},
        "resources": {} if slots is None else {"slots_per_trial": slots},
    }


@pytest.mark.parametrize(("rows", "slots"), [(8, None), (8, 1), (4, 4), (12, 4), (64, 2)])
def test_slots_may_share_a_batch_evenly(rows: int, slots: int | None) -> None:
    assert not list(slots_share_a_batch(_shared(rows, slots)))


@pytest.mark.parametrize(
    ("rows", "slots", "remedy"),
    [
        (10, 4, "use 8 or 12"),
        (64, 3, "use 63 or 66"),
        (5, 4, "use 4 or 8"),
        (3, 4, "use 4, or fewer slots"),
    ],
)
def test_slots_that_cannot_share_a_batch_are_told_what_they_can(
    rows: int, slots: int, remedy: str
) -> None:
    (problem,) = slots_share_a_batch(_shared(rows, slots))
    assert (problem.path, problem.received) == ("hyperparameters.global_batch_size", rows)
    assert problem.remedy == remedy


@pytest.mark.parametrize(
    ("rows", "slots"), [(0, 4), (-3, 4), (1.5, 4), ("10", 4), (10, 0), (10, -4), (10, "4")]
)
def test_sizes_that_are_wrong_in_themselves_are_left_to_others(rows: Any, slots: Any) -> None:
    assert not list(slots_share_a_batch(_shared(rows, slots)))


@pytest.mark.parametrize("image", ["mine:1", {"cuda": "mine:1"}])
def test_an_image_of_ones_own_is_trusted(image: Any) -> None:
    assert not list(image_has_tensorflow({"environment": {"image": image}}))


def test_checks_leave_values_that_are_wrong_in_themselves_to_others() -> None:
    config: dict[str, Any] = {"searcher": 3, "hyperparameters": "x", "resources": []}
    assert not list(epochs_have_a_length(config))
    assert not list(slots_share_a_batch(config))


def _halving(period: Any, **fields: Any) -> dict[str, Any]:
    """Rungs at 4, 16 and 64 batches, or as many epochs of 10 batches."""
    unit = fields.get("time_metric", "batches")
    return {
        "searcher": {
            "name": "async_halving",
            "metric": "val_nlpd",
            "max_length": {unit: 64},
            "max_time": 64,
            "time_metric": "batches",
            "num_rungs": 3,
            "max_trials": 8,
            **fields,
        },
        "min_validation_period": period,
        "records_per_epoch": 80,
        "hyperparameters": {"global_batch_size": 8},
    }


@pytest.mark.parametrize(
    ("period", "fields"),
    [
        ({"batches": 4}, {}),
        ({"records": 32}, {}),
        ({"batches": 40}, {"time_metric": "epochs"}),
        ({"epochs": 4}, {"time_metric": "epochs", "max_length": {"epochs": 64}}),
        ({"batches": 64}, {"num_rungs": 1}),
        ({"batches": 64}, {"name": "random"}),  # no rungs, and no fields of its own
        ({"batches": "x"}, {}),  # wrong in itself
    ],
)
def test_validations_as_often_as_rungs_are_well(period: Any, fields: dict[str, Any]) -> None:
    assert not list(rungs_see_a_validation(_halving(period, **fields)))


@pytest.mark.parametrize(
    ("period", "fields", "remedy"),
    [
        (None, {}, "set min_validation_period: {batches: 4}"),
        ({"batches": 0}, {}, "set min_validation_period: {batches: 4}"),
        ({"batches": 5}, {}, "set min_validation_period: {batches: 4}"),
        ({"epochs": 1}, {}, "set min_validation_period: {batches: 4}"),
        ({"records": 40}, {}, "set min_validation_period: {batches: 4}"),
        ({"batches": 41}, {"time_metric": "epochs"}, "set min_validation_period: {epochs: 4}"),
    ],
)
def test_validations_too_seldom_for_the_shortest_rung_are_refused(
    period: Any, fields: dict[str, Any], remedy: str
) -> None:
    (problem,) = rungs_see_a_validation(_halving(period, **fields))
    assert (problem.path, problem.remedy) == ("min_validation_period", remedy)


def test_a_grid_needs_a_count_of_every_range() -> None:
    ranges = {
        "a": {"type": "int", "minval": 1, "maxval": 3},
        "b": {"c": {"type": "log", "minval": 1, "maxval": 3, "base": 10}},
        "d": {"type": "double", "minval": 1, "maxval": 3, "count": 2},
        "e": {"type": "categorical", "vals": [1]},
        "f": 3,
    }
    config = {"searcher": {"name": "grid"}, "hyperparameters": ranges}
    paths = [problem.path for problem in grids_can_be_counted(config)]
    assert paths == ["hyperparameters.a.count", "hyperparameters.b.c.count"]
    assert not list(grids_can_be_counted({**config, "searcher": {"name": "random"}}))


@pytest.mark.parametrize("name", ["source_trial_id", "source_checkpoint_uuid"])
def test_what_only_a_cluster_has_is_refused_elsewhere(name: str) -> None:
    (problem,) = trials_start_from_nothing({"searcher": {name: 3}})
    assert problem.code == "only-on-a-cluster"
    assert not list(trials_start_from_nothing({"searcher": {name: None}}))


def test_models_may_be_selected_by_every_figure_that_a_likelihood_says_can_judge() -> None:
    kinds: Any = groups(LikelihoodSettings)
    figures = {f"val_{f.name}": f for kind in kinds for f in kind.likelihood.figures if f.judges}
    assert {"val_loss", "val_elbo_per_datum", *figures} == set(get_args(SelectionMetric))
    larger = {name for name, figure in figures.items() if figure.larger_is_better}
    assert {"val_elbo_per_datum", *larger} == LARGER_IS_BETTER
