"""The engine trains what it trained before its structure was changed.

All traces were reproduced to 4e-15 (1e-6 in float32) after that. Four were then recorded anew, as
what they trace was changed on purpose: `student_t`, whose expectation had been a quadrature of 20
points, off by 1e-3 nats a row here; and those with natural gradients on inner layers, whose
`guaranteed` step had gone against the gradient where it was too long.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.integration.loss_traces import FILE, VARIANTS, trace

SAME = {"float32": 1e-5, "float64": 1e-12}
"""Summation may be ordered otherwise, on another processor too; steps then carry it on."""


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_are_those_recorded(name: str) -> None:
    recorded = json.loads(FILE.read_text(encoding="utf-8"))[name]
    dtype = VARIANTS[name].get("model", {}).get("dtype", "float64")
    assert recorded[-1] < recorded[0] - 0.05  # it does train
    np.testing.assert_allclose(trace(name), recorded, rtol=0, atol=SAME[dtype])
