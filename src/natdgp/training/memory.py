"""Whether a machine could hold a batch at all, before minutes are spent on finding out."""

from __future__ import annotations

import os

import numpy as np

from natdgp.settings.schema import Settings

_MATRICES = 2
"""Covariances of a batch with the inducing points, and what the Cholesky factor makes of them: the
gradient needs both."""


def too_large_a_batch(settings: Settings, slots: int) -> str | None:
    """Why a slot's part of a batch exceeds all memory of this machine; None if it need not.

    What fits by this measure may still exhaust the memory.
    """
    M = max(settings.model.inducing_points_per_layer)
    size = np.dtype(settings.model.dtype).itemsize
    needed = _MATRICES * settings.global_batch_size // slots * M * size
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed <= there:
        return None
    return (
        f"a step would take at least {needed / 2**30:,.0f} GiB, and this machine has "
        f"{there / 2**30:,.0f}: hyperparameters.global_batch_size is "
        f"{settings.global_batch_size:,} and hyperparameters.model.inducing_points at most {M:,}. "
        "Lower one of them"
    )
