from __future__ import annotations

import pytest
from pydantic import ValidationError

from natdgp.models.settings import ModelSettings
from natdgp.settings.schema import Settings

SMALLEST = Settings.read({"global_batch_size": 8}, {"source": "flights"})


def test_defaults_make_a_whole_run_of_a_batch_size_and_a_source() -> None:
    assert SMALLEST.model.layers == 2
    assert SMALLEST.model.likelihood.name == "gaussian"
    assert SMALLEST.natural_gradient.layers == "last"
    assert SMALLEST.adam.schedule.name == "constant"
    assert SMALLEST.reduce_lr_on_plateau is None
    assert SMALLEST.early_stopping is None
    assert SMALLEST.data.split.validation == 0.1


def test_settings_cannot_be_changed_at_any_depth() -> None:
    with pytest.raises(ValidationError):
        SMALLEST.global_batch_size = 9
    with pytest.raises(ValidationError):
        SMALLEST.model.kernel.variance = 2.0


def test_one_number_of_inducing_points_holds_for_every_layer() -> None:
    assert ModelSettings(layers=3, inducing_points=7).inducing_points_per_layer == (7, 7, 7)
    assert ModelSettings(layers=2, inducing_points=(7, 5)).inducing_points_per_layer == (7, 5)


@pytest.mark.parametrize(
    ("layers", "indices"),
    [("all", (0, 1, 2)), ("last", (2,)), ("none", ()), ([2, 0], (0, 2))],
)
def test_natural_gradient_layers_resolve_to_ascending_indices(
    layers: object, indices: tuple[int, ...]
) -> None:
    settings = Settings.read(
        {
            "global_batch_size": 8,
            "model": {"layers": 3},
            "natural_gradient": {"layers": layers},
        },
        {"source": "flights"},
    )
    assert settings.natural_gradient_layers == indices


def test_a_whole_number_serves_as_a_number() -> None:
    read = Settings.read(
        {"global_batch_size": 8, "adam": {"learning_rate": 1}}, {"source": "flights"}
    )
    assert read.adam.learning_rate == 1.0
