"""The validation metrics that a trial reports, and by which it may be judged."""

from __future__ import annotations

from typing import Final, Literal, get_args

ValidationMetric = Literal[
    "val_loss",
    "val_rmse",
    "val_nlpd",
    "val_crps",
    "val_coverage_95",
    "val_elbo_per_datum",
    "val_rmse_standardised",
    "val_nlpd_standardised",
    "val_crps_standardised",
]

VALIDATION_METRICS: Final[tuple[str, ...]] = get_args(ValidationMetric)

LARGER_IS_BETTER: Final = frozenset({"val_elbo_per_datum"})
