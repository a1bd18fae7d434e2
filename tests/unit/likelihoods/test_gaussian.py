from __future__ import annotations

import gpflow
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import special, stats

from natdgp.likelihoods.gaussian import GaussianLikelihood, GaussianSettings
from tests.unit.likelihoods.oracles import batch, integrated_crps

NOISE = 0.2


def _gaussian() -> GaussianLikelihood:
    return GaussianSettings(variance=NOISE).build()


def test_expected_log_density_is_gpflows_to_the_last_bit() -> None:
    mean, var, Y = batch()
    found = _gaussian().expected_log_density(mean, var, Y)
    gpflows = gpflow.likelihoods.Gaussian(NOISE)
    for sample in range(3):
        expected = gpflows.variational_expectations(None, mean[sample], var[sample], Y)
        np.testing.assert_array_equal(found[sample], expected)


def test_log_density_is_that_of_scipys_mixture() -> None:
    mean, var, Y = batch()
    found = _gaussian().log_density(mean, var, Y)
    logs = stats.norm.logpdf(Y, mean, np.sqrt(var + NOISE)).sum(axis=-1)  # joint in each sample
    np.testing.assert_allclose(found, special.logsumexp(logs, axis=0) - np.log(3), rtol=1e-12)
    by_output = np.log(stats.norm.pdf(Y, mean, np.sqrt(var + NOISE)).mean(axis=0))
    assert np.all(np.abs(found - by_output.sum(axis=-1)) > 1e-3)


def test_log_density_far_out_does_not_underflow() -> None:
    mean, var = np.zeros((2, 1, 1)), np.full((2, 1, 1), 1.0 - NOISE)
    found = _gaussian().log_density(mean, var, np.array([[1e3]]))
    assert float(found[0]) == pytest.approx(stats.norm.logpdf(1e3), rel=1e-12)


def test_cdf_is_that_of_scipys_mixture() -> None:
    mean, var, Y = batch()
    expected = stats.norm.cdf(Y, mean, np.sqrt(var + NOISE)).mean(axis=0)
    np.testing.assert_allclose(_gaussian().cdf(mean, var, Y), expected, rtol=1e-12)


@pytest.mark.parametrize("S", [1, 2, 5])
def test_crps_is_the_integral_that_defines_it(S: int) -> None:
    mean, var, Y = batch(S=S, n=3)
    found = _gaussian().crps(mean, var, Y)
    std = np.sqrt(var + NOISE)
    for row, q in np.ndindex(3, 2):
        components = stats.norm(mean[:, row, q], std[:, row, q])
        expected = integrated_crps(lambda z, c=components: c.cdf(z).mean(), Y[row, q], 30)  # type: ignore[misc]
        assert float(found[row, q]) == pytest.approx(expected, abs=1e-9)  # of the integral


def test_mean_and_variance_are_those_of_the_mixture() -> None:
    mean, var, _ = batch()
    y_mean, y_var = _gaussian().mean_and_variance(mean, var)
    np.testing.assert_allclose(y_mean, mean.mean(axis=0), rtol=1e-12)
    second = (mean**2 + var + NOISE).mean(axis=0)
    np.testing.assert_allclose(y_var, second - mean.mean(axis=0) ** 2, rtol=1e-12)


def test_a_likelihood_by_its_scale_is_that_of_its_variance() -> None:
    by_scale = GaussianLikelihood(gpflow.likelihoods.Gaussian(scale=np.sqrt(NOISE)))
    arguments = batch()
    np.testing.assert_allclose(
        by_scale.log_density(*arguments), _gaussian().log_density(*arguments), rtol=1e-12
    )


@pytest.mark.parametrize("variance", [1e-6, 1e-7, -1.0])
def test_a_variance_at_or_below_the_floor_is_refused(variance: float) -> None:
    with pytest.raises(ValidationError, match=r"variance\n  Input should be greater than 0.000001"):
        GaussianSettings(variance=variance)
    assert GaussianSettings(variance=1.1e-6).build().gpflow.variance.numpy() == pytest.approx(
        1.1e-6
    )
