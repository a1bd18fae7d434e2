"""The figures of two models that everyone has: the mean, and linear regression."""

from __future__ import annotations

import numpy as np
from scipy.special import erf
from scipy.stats import norm

from natdgp.data.prepare import Numbers, Rows
from natdgp.data.scaling import Scaling
from natdgp.likelihoods.base import Likelihood


def baseline_figures(
    train: Rows, test: Rows, scaling: Scaling, likelihood: Likelihood
) -> dict[str, dict[str, float]]:
    """Figures of simple models on the split of the run.

    For numbers, "predict the mean" and "linear regression", and else the likelihood's baseline.
    The former predict a Gaussian whose standard deviation is that of their training residuals,
    which is never 0: an exact fit is exact up to rounding.

    :returns: by baseline, in the original units: of numbers rmse, nlpd, crps and coverage_95.
    """
    if not likelihood.scales_targets:
        return {"base rate": likelihood.baseline(train.Y, test.Y)}
    ones = np.ones((len(train), 1)), np.ones((len(test), 1))
    designs = {
        "predict the mean": ones,
        "linear regression": (np.hstack([ones[0], train.X]), np.hstack([ones[1], test.X])),
    }
    return {
        name: _gaussian_figures(*_least_squares(A_train, train.Y, A_test), test.Y, scaling)
        for name, (A_train, A_test) in designs.items()
    }


def _least_squares(A_train: Numbers, Y_train: Numbers, A_test: Numbers) -> tuple[Numbers, Numbers]:
    weights, *_ = np.linalg.lstsq(A_train, Y_train, rcond=None)
    residual_std = np.std(Y_train - A_train @ weights, axis=0)
    return A_test @ weights, np.maximum(residual_std, np.finfo(np.float64).eps)


def _gaussian_figures(
    mean: Numbers, std: Numbers, Y: Numbers, scaling: Scaling
) -> dict[str, float]:
    y_std = scaling.y_std
    error = Y - mean
    z = error / std
    log_density = norm.logpdf(z) - np.log(std) - np.log(y_std)
    # Gneiting & Raftery (2007), equation 21.
    crps = std * (z * erf(z / np.sqrt(2)) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    return {
        "rmse": float(np.sqrt(np.mean(np.square(error * y_std)))),
        "nlpd": float(-np.mean(log_density.sum(axis=1))),
        "crps": float(np.mean(crps * y_std)),
        "coverage_95": float(np.mean(np.abs(z) <= norm.ppf(0.975))),
    }
