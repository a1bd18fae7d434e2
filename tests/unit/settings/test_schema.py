from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from natdgp.models.model_settings import ModelSettings
from natdgp.settings import SettingsError
from natdgp.settings.schema import Settings


def read(**hyperparameters: Any) -> Settings:
    return Settings.read({"global_batch_size": 8, **hyperparameters}, {"source": "flights"})


SMALLEST = read()


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
    [("all", (0, 1, 2)), ("last", (2,)), ("none", ()), ([0, 2], (0, 2))],
)
def test_natural_gradient_layers_resolve_to_ascending_indices(
    layers: object, indices: tuple[int, ...]
) -> None:
    settings = read(model={"layers": 3}, natural_gradient={"layers": layers})
    assert settings.natural_gradient_layers == indices


def test_a_whole_number_serves_as_a_number() -> None:
    assert read(adam={"learning_rate": 1}).adam.learning_rate == 1.0


@pytest.mark.parametrize(
    "natural_gradient",
    [
        {"layers": "all", "gamma": [0.1]},
        {"gamma": [0.1, 0.1]},
        {"layers": [0, 1], "gamma_initial": [0.1], "ramp_steps": 3},
    ],
)
def test_a_list_of_gammas_is_as_long_as_the_layers_are_many(natural_gradient: Any) -> None:
    assert read(natural_gradient={"layers": "all", "gamma": [0.01, 0.1]})
    with pytest.raises(SettingsError, match="not-one-per-layer"):
        read(natural_gradient=natural_gradient)


def test_a_likelihood_lies_above_the_floor_of_gpflow() -> None:  # the Gaussian's: cases.yaml
    with pytest.raises(SettingsError, match="out-of-range"):
        read(model={"likelihood": {"name": "student_t", "scale": 1e-6}})


@pytest.mark.parametrize(
    ("path", "group", "held"),
    [
        ("model.kernel.variance", {"kernel": {"variance": 1e-40}}, "0.0"),  # denormal
        ("model.kernel.lengthscale", {"kernel": {"lengthscale": 1e39}}, "inf"),
        ("model.inner_q_sqrt_scale", {"inner_q_sqrt_scale": 1e-50}, "0.0"),
    ],
)
def test_what_float32_cannot_hold_is_refused_in_its_models_alone(
    path: str, group: dict[str, Any], held: str
) -> None:
    assert read(model=group)
    gammas = {"layers": "all", "gamma": [0.1, 1e-60]}
    with pytest.raises(SettingsError) as caught:
        read(model={**group, "dtype": "float32"}, natural_gradient=gammas)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert found == {
        f"hyperparameters.{path}": f"float32 makes it {held}",
        "hyperparameters.natural_gradient.gamma.1": "float32 makes it 0.0",
    }
