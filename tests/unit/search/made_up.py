"""What the stand-in for a trial reports; apart, so that it can be read without the stack."""

from __future__ import annotations

import math

RECORD = "natdgp.json"


def value_at_step(learning_rate: float, step: int) -> float:
    """Better towards a learning rate of 0.03 and with every step, to one digit, so with ties."""
    return round(2 + abs(math.log10(learning_rate / 0.03)) + 3 / max(step, 1), 1)
