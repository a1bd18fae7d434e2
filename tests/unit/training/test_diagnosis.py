from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from natdgp.training.diagnosis import explain_breakdown, explain_failure
from natdgp.training.model import DeepGPModel
from tests.unit.training.small_models import small_deep_gp, small_model

LENGTHS = (
    r"Lower hyperparameters\.natural_gradient\.gamma \(now 0\.25\) "
    r"or hyperparameters\.adam\.learning_rate \(now 0\.125\)\."
)


def _model(natgrad_layers: Sequence[int] = (1,), **settings: Any) -> DeepGPModel:
    deep_gp = small_deep_gp(**{"hidden_width": 3, "inducing_points": 3, **settings})
    return small_model(natgrad_layers, deep_gp=deep_gp, gamma=0.25, rate=0.125)


@pytest.fixture(scope="module")
def _shared_model() -> DeepGPModel:
    return _model()


@pytest.fixture
def model(_shared_model: DeepGPModel) -> Iterator[DeepGPModel]:
    """A model that a test may break: it is whole again for the next."""
    weights, gamma = _shared_model.get_weights(), _shared_model.natgrad_optimizers[0].gamma
    yield _shared_model
    _shared_model.set_weights(weights)
    gamma.assign(0.25)


def _break(parameter: Any, figure: float) -> None:
    """One entry of a parameter becomes nan or inf, as a step leaves it."""
    variable = parameter.unconstrained_variable
    values = np.array(variable.numpy())
    values.flat[0] = figure
    variable.assign(values)


@pytest.mark.parametrize("figure", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("parameter", "named"),
    [
        (lambda m: m.f_layers[0].q_mu, "layer_0 has non-finite q_mu."),
        (
            lambda m: m.f_layers[1].kernel.kernel.lengthscales,
            "layer_1 has non-finite kernel.kernel.lengthscales.",
        ),
        (
            lambda m: m.f_layers[1].inducing_variable.inducing_variable.Z,
            "layer_1 has non-finite inducing_variable.inducing_variable.Z.",
        ),
        (lambda m: m.gpflow_likelihood.variance, "likelihood has non-finite variance."),
    ],
)
def test_a_breakdown_names_layer_parameter_and_remedy(
    model: DeepGPModel, parameter: Any, named: str, figure: float
) -> None:
    assert "non-finite" not in explain_breakdown(model, "loss is nan in the step after step 12")
    _break(parameter(model.deep_gp), figure)
    explained = explain_breakdown(model, "loss is nan in the step after step 12")
    assert explained.startswith(
        f"loss is nan in the step after step 12: {named} Lower hyperparameters."
    )


def test_a_breakdown_lists_all_parameters_of_the_first_broken_layer(model: DeepGPModel) -> None:
    inner, last = model.deep_gp.f_layers
    likelihood = model.deep_gp.gpflow_likelihood
    for parameter in (inner.q_mu, inner.q_sqrt, last.q_mu, likelihood.variance):
        _break(parameter, np.nan)
    explained = explain_breakdown(model, "loss is nan")
    assert "layer_0 has non-finite q_mu, q_sqrt." in explained
    assert "layer_1" not in explained
    assert "likelihood has" not in explained


def test_a_breakdown_with_finite_parameters_says_so(model: DeepGPModel) -> None:
    explained = explain_breakdown(model, "val_nlpd is inf after step 4")
    assert explained.startswith("val_nlpd is inf after step 4, although all parameters are finite")
    assert "predictive density" in explained


def test_activations_are_told_from_parameters(
    model: DeepGPModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where inducing points crowd in float32, and a variance comes out negative."""
    layer = model.deep_gp.f_layers[0]
    marginals = layer.marginals

    def negative(F: Any, q: Any) -> Any:
        mean, var = marginals(F, q)
        return mean, -var

    monkeypatch.setattr(layer, "marginals", negative)
    explained = explain_breakdown(model, "loss is nan")
    assert "although all parameters are finite: outputs of layer_0 are not" in explained
    assert "Set hyperparameters.model.dtype to float64" in explained
    assert "Lower" not in explained


def test_the_remedy_names_the_step_lengths_now_in_force(model: DeepGPModel) -> None:
    assert LENGTHS.replace("\\", "") in explain_breakdown(model, "loss is nan")
    model.natgrad_optimizers[0].gamma.assign(1e-3)
    assert "gamma (now 0.001)" in explain_breakdown(model, "loss is nan")
    no_gamma = explain_breakdown(_model(()), "loss is nan")
    assert no_gamma.endswith("Lower hyperparameters.adam.learning_rate (now 0.125).")


MEMORY = r"Lower .*global_batch_size.*model\.inducing_points.*model\.num_samples.*"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            'assertion failed: [too long; use positive_definite=\\"fallback\\"]\n\t [[node x]]',
            'too long; use positive_definite="fallback"',
        ),
        (
            "Cholesky decomposition was not successful. The input might not be valid. [Op:...]",
            rf"a covariance matrix is not positive definite\. {LENGTHS}",
        ),
        (
            "OOM when allocating tensor with shape[9,9]\n\t [[node x]]",
            rf"memory is exhausted \(OOM when allocating tensor with shape\[9,9\]\)\. {MEMORY}",
        ),
        (
            "failed to allocate memory [Op:AddV2]\n\t [[node x]]",
            rf"memory is exhausted \(failed to allocate memory \[Op:AddV2\]\)\. {MEMORY}",
        ),
        ("Incompatible shapes: [3] vs. [4]", None),
        ("/runs/events.out; No space left on device", None),
    ],
)
def test_a_failure_is_told_in_words_if_it_is_known(
    model: DeepGPModel, message: str, told: str | None
) -> None:
    found = explain_failure(model, 4, message)
    if told is None:
        assert found is None
    else:
        assert re.fullmatch(f"the step after step 4 failed: {told}", found or "")
