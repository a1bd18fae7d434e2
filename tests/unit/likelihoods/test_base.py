from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf

from natdgp.likelihoods.base import gpflow_float
from natdgp.likelihoods.gaussian import GaussianSettings
from natdgp.likelihoods.student_t import StudentTSettings
from tests.unit.likelihoods.oracles import batch

LEVELS = np.array([0.001, 0.025, 0.5, 0.9, 0.999])
SETTINGS = [GaussianSettings(variance=0.2), StudentTSettings(name="student_t")]


@pytest.mark.parametrize("settings", SETTINGS)
def test_quantiles_and_cdf_are_inverse(settings: GaussianSettings | StudentTSettings) -> None:
    likelihood = settings.build()
    mean, var, _ = batch()
    found, in_float32 = (
        tf.function(likelihood.quantiles)(
            *(tf.constant(part, dtype) for part in (LEVELS, mean, var))
        )
        for dtype in ("float64", "float32")
    )
    assert found.shape == (5, 5, 2)
    for level, quantile in zip(LEVELS, found, strict=True):
        np.testing.assert_allclose(likelihood.cdf(mean, var, quantile), level, rtol=1e-9)
    assert in_float32.dtype == tf.float32
    # A CDF that is known to 1e-7 says little about levels of 0.001: a thousandth of a spread of 1.
    np.testing.assert_allclose(in_float32, found, atol=1e-3)


def test_gpflow_makes_parameters_of_a_float_type_and_keeps_its_default() -> None:
    with gpflow_float("float32"):
        assert gpflow.Parameter(1.0).dtype == tf.float32
    assert gpflow.config.default_float() == np.float64
