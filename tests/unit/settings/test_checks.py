from __future__ import annotations

from typing import Any

import pytest

from natdgp.settings.checks import (
    epochs_have_a_length,
    every_slot_has_a_row,
    image_has_tensorflow,
    one_slot,
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


@pytest.mark.parametrize(
    ("rows", "slots", "wrong"), [(3, 4, True), (4, 4, False), (8, None, False)]
)
def test_a_batch_has_a_row_for_every_slot(rows: int, slots: int | None, wrong: bool) -> None:
    config = {
        "hyperparameters": {"global_batch_size": rows},
        "resources": {} if slots is None else {"slots_per_trial": slots},
    }
    assert len(list(every_slot_has_a_row(config))) == wrong


@pytest.mark.parametrize(("slots", "wrong"), [(2, True), (1, False), (None, False)])
def test_several_slots_are_refused_by_name(slots: int | None, wrong: bool) -> None:
    assert len(list(one_slot({"resources": {"slots_per_trial": slots}}))) == wrong


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
    assert not list(every_slot_has_a_row(config))
