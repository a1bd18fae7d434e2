"""Predictions to judge, and the integrals that define what likelihoods compute."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
from scipy import integrate

from tests.conftest import FloatArray

Batch = tuple[FloatArray, FloatArray, FloatArray]
"""Mean and variance of f, [S, n, Q], and targets [n, Q]."""


def batch(S: int = 3, n: int = 5, Q: int = 2, seed: int = 0) -> Batch:
    """Predictions that differ over samples and rows."""
    generator = np.random.default_rng(seed)
    mean = generator.normal(size=(S, n, Q))
    var = generator.uniform(0.05, 0.4, size=(S, n, Q))
    return mean, var, generator.normal(size=(n, Q))


def over_gaussian(
    function: Callable[[float], float], mean: float, var: float, places: Iterable[float] = ()
) -> float:
    """Integral of function(f) N(f; mean, var) df.

    :param places: where the function changes fast, in units of f.
    """
    std = math.sqrt(var)
    reach = 10.0
    cuts = np.clip((np.array([*places, mean]) - mean) / std, -reach, reach)
    pieces = [
        integrate.quad(
            lambda z: math.exp(-0.5 * z * z) * function(mean + std * z),
            *ends,
            epsabs=1e-13,
            epsrel=1e-11,
            limit=500,
        )[0]
        for ends in itertools.pairwise(np.unique([-reach, *cuts, reach]))
    ]
    return float(sum(pieces)) / math.sqrt(2 * math.pi)


def integrated_crps(cdf: Callable[[float], float], y: float, reach: float) -> float:
    """Integral of (F(z) - [y <= z])^2 dz over |z| < reach, for F that changes most around 0."""

    def integrate_over(low: float, high: float, above: float) -> float:
        # z = sinh(x), as tails fall over many sizes.
        return float(
            integrate.quad(
                lambda x: (cdf(np.sinh(x)) - above) ** 2 * np.cosh(x),
                *np.arcsinh([low, high]),
                epsabs=1e-10,
                limit=500,
            )[0]
        )

    return integrate_over(-reach, y, 0.0) + integrate_over(y, reach, 1.0)
