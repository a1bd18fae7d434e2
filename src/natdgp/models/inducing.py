"""Where inducing inputs start."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.cluster.vq import kmeans2

from natdgp.data.prepare import Numbers

ROWS_PER_CENTRE = 100
"""K-means sees at most this many rows per centre: more hardly move the centres."""


class TooFewRows(ValueError):
    """The training data have fewer distinct rows than the model has inducing points."""


def kmeans_inducing_points(X: Numbers, num_inducing: int, seed: int) -> Numbers:
    """Centres of k-means (k-means++ start) over a seeded subsample of distinct rows.

    :param X: [N, D] standardised inputs.
    :param num_inducing: M.
    :param seed: decides subsample and start.
    :returns: [M, D].
    :raises TooFewRows: if X has fewer distinct rows than M.
    """
    generator = np.random.default_rng(seed)
    wanted = ROWS_PER_CENTRE * num_inducing
    chosen = X if len(X) <= wanted else X[np.sort(generator.permutation(len(X))[:wanted])]
    distinct = np.unique(chosen, axis=0)
    if len(distinct) < num_inducing:
        distinct = np.unique(X, axis=0)  # a subsample of many equal rows misses the rare ones
    if len(distinct) < num_inducing:
        raise TooFewRows(
            f"inducing_points is {num_inducing} but the training data have only {len(distinct)} "
            "distinct rows; lower hyperparameters.model.inducing_points"
        )
    if len(distinct) == num_inducing:
        return np.asarray(distinct)
    with warnings.catch_warnings():
        # A centre that loses all its rows keeps its place, which is as good a start as any.
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        centres, _ = kmeans2(distinct, num_inducing, minit="++", seed=generator)
    return np.asarray(centres, dtype=X.dtype)
