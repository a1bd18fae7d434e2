"""The validation metrics that a trial reports, and those by which it may be judged."""

from __future__ import annotations

from typing import Final, Literal, get_args

JudgingMetric = Literal[
    "val_loss",
    "val_rmse",
    "val_nlpd",
    "val_crps",
    "val_elbo_per_datum",
    "val_rmse_standardised",
    "val_nlpd_standardised",
    "val_crps_standardised",
]

"""Those of which the smaller, or the larger, is the better."""

VALIDATION_METRICS: Final[tuple[str, ...]] = (*get_args(JudgingMetric), "val_coverage_95")
"""All; of the last, 0.95 is right, and more is as wrong as less."""

LARGER_IS_BETTER: Final = frozenset({"val_elbo_per_datum"})
