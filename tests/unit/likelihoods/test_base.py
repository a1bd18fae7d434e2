from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize, stats

from natdgp.likelihoods.base import Likelihood, gpflow_float
from natdgp.likelihoods.gaussian import GaussianSettings
from natdgp.likelihoods.student_t import StudentTSettings
from tests.unit.likelihoods.oracles import batch

LEVELS = np.array([0.001, 0.025, 0.5, 0.9, 0.999])
SETTINGS: list[GaussianSettings | StudentTSettings] = [
    GaussianSettings(variance=0.2),
    StudentTSettings(name="student_t"),
]


def _quantiles(likelihood: Likelihood, dtype: str) -> tf.Tensor:
    mean, var, _ = (tf.constant(part, dtype) for part in batch())
    return tf.function(likelihood.quantiles)(tf.constant(LEVELS, dtype), mean, var)


@pytest.mark.parametrize("settings", SETTINGS)
def test_quantiles_and_cdf_are_inverse(
    settings: GaussianSettings | StudentTSettings,
) -> None:
    mean, var, _ = batch()
    likelihood = settings.build()
    found = _quantiles(likelihood, "float64")
    assert found.shape == (5, 5, 2)
    for level, quantile in zip(LEVELS, found, strict=True):
        np.testing.assert_allclose(likelihood.cdf(mean, var, quantile), level, rtol=1e-9)


def test_quantiles_are_those_of_scipys_mixture() -> None:
    mean, var, _ = batch()
    found = _quantiles(SETTINGS[0].build(), "float64")
    components = stats.norm(mean[:, 2, 1], np.sqrt(var[:, 2, 1] + 0.2))
    for level, quantile in zip(LEVELS, found[:, 2, 1], strict=True):
        root = optimize.brentq(lambda y, p=level: components.cdf(y).mean() - p, -20, 20, xtol=1e-13)
        assert float(quantile) == pytest.approx(root, abs=1e-9)


@pytest.mark.parametrize("settings", SETTINGS)
def test_quantiles_in_float32(settings: GaussianSettings | StudentTSettings) -> None:
    likelihood = settings.build()
    found = _quantiles(likelihood, "float32")
    assert found.dtype == tf.float32
    # A CDF that is known to 1e-7 says little about levels of 0.001: a thousandth of a spread of 1.
    np.testing.assert_allclose(found, _quantiles(likelihood, "float64"), atol=1e-3)


def test_gpflow_makes_parameters_of_a_float_type_and_keeps_its_default() -> None:
    with gpflow_float("float32"):
        assert gpflow.Parameter(1.0).dtype == tf.float32
    assert gpflow.config.default_float() == np.float64
