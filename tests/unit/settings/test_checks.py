from __future__ import annotations

from typing import Any

import pytest

from natdgp.settings.checks import (
    epochs_have_a_length,
    image_has_tensorflow,
    slots_share_a_batch,
)


@pytest.mark.parametrize(
    "config",
    [
        {"searcher": {"max_length": {"epochs": 3}}},
        {"min_validation_period": {"epochs": 1}},
        {"min_checkpoint_period": {"epochs": 1}},
        {"hyperparameters": {"adam": {"schedule": {"name": "per_epoch", "factor": 0.9}}}},
    ],
)
def test_whatever_counts_epochs_needs_records_per_epoch(config: dict[str, Any]) -> None:
    (problem,) = epochs_have_a_length(config)
    assert problem.path == "records_per_epoch"
    assert "every batch would end an epoch" in problem.message
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
    assert f"a multiple of resources.slots_per_trial, {slots}," in problem.message
    assert problem.remedy == remedy


@pytest.mark.parametrize(
    ("rows", "slots"), [(0, 4), (-3, 4), (1.5, 4), ("10", 4), (10, 0), (10, -4), (10, "4")]
)
def test_sizes_that_are_wrong_in_themselves_are_left_to_others(rows: Any, slots: Any) -> None:
    assert not list(slots_share_a_batch(_shared(rows, slots)))


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        (None, "environment.image"),
        ({}, "environment.image"),
        ({"image": {}}, "environment.image"),
        ({"image": "determinedai/pytorch-ngc:0.38.1"}, "environment.image"),
        ({"image": {"cuda": "a", "cpu": "determinedai/pytorch-ngc-dev"}}, "environment.image.cpu"),
    ],
)
def test_an_image_without_tensorflow_is_refused(environment: Any, path: str) -> None:
    (problem,) = image_has_tensorflow({"environment": environment})
    assert problem.path == path
    assert "determinedai/tensorflow-ngc:0.38.1" in problem.remedy


@pytest.mark.parametrize("image", ["mine:1", {"cuda": "mine:1"}])
def test_an_image_of_ones_own_is_trusted(image: Any) -> None:
    assert not list(image_has_tensorflow({"environment": {"image": image}}))


def test_checks_leave_values_that_are_wrong_in_themselves_to_others() -> None:
    config: dict[str, Any] = {"searcher": 3, "hyperparameters": "x", "resources": []}
    assert not list(epochs_have_a_length(config))
    assert not list(slots_share_a_batch(config))
