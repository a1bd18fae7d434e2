"""Losses of small models, step by step: what a change of the engine's structure has to reproduce.

python -m tests.integration.loss_traces        (writes the traces anew)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.builder import TaskShape
from natdgp.settings.schema import Settings
from natdgp.training.assembly import build_optimizers, build_training_model
from natdgp.training.steppers import Aggregation
from tests.unit.training.ranks import together

FILE = Path(__file__).parent.parent / "fixtures" / "loss_traces.json"
ROWS, BATCH, STEPS = 120, 40, 20

ALL = {"layers": "all", "gamma": 0.05}
VARIANTS: dict[str, dict[str, Any]] = {
    "one layer": {"model": {"layers": 1}},
    "two layers": {},
    "two layers, two samples, two outputs": {"model": {"num_samples": 2}, "outputs": 2},
    "three layers": {"model": {"layers": 3}, "natural_gradient": ALL},
    "student_t": {"model": {"likelihood": {"name": "student_t"}}},
    "float32": {"model": {"dtype": "float32"}},
    "matern52, three layers, float32": {
        "model": {"layers": 3, "dtype": "float32", "kernel": {"name": "matern52"}}
    },
    "two ranks": {"ranks": 2, "natural_gradient": ALL},
    "aggregated": {"aggregation": Aggregation(2)},
    "two ranks, aggregated": {"ranks": 2, "aggregation": Aggregation(2)},
    "two ranks, sharded": {"ranks": 2, "natural_gradient": {**ALL, "placement": "sharded"}},
}


def trace(name: str) -> list[float]:
    """The losses of a variant's first steps."""
    variant = VARIANTS[name]
    return together(variant.get("ranks", 1), lambda ranks: _trace(variant, ranks))[0]


def _trace(variant: dict[str, Any], ranks: Reducer) -> list[float]:
    settings = Settings.read(
        {
            "global_batch_size": BATCH,
            "model": {"inducing_points": 12, **variant.get("model", {})},
            "natural_gradient": variant.get("natural_gradient", {}),
        },
        {"source": "flights"},
    )
    generator = np.random.default_rng(0)
    outputs = variant.get("outputs", 1)
    X = generator.normal(size=(ROWS, 3)).astype(settings.model.dtype)
    noise = generator.standard_t(4, size=(ROWS, outputs))
    Y = (np.sin(2 * X[:, :1]) + 0.5 * X[:, 1:2] + 0.1 * noise).astype(settings.model.dtype)
    model = build_training_model(
        settings,
        TaskShape(num_data=ROWS, input_dim=3, output_dim=outputs),
        np.full(outputs, 2.0),
        seed=3,
        X=X,
        reducer=ranks if ranks.size > 1 else OneProcess(),
        aggregation=variant.get("aggregation"),
    )
    model.compile(optimizer=build_optimizers(settings, model))
    step = model.train_step if ranks.size > 1 else tf.function(model.train_step)
    share = BATCH // ranks.size
    losses = []
    for number in range(STEPS):
        positions = number * BATCH + ranks.rank * share + np.arange(share)
        rows = positions % ROWS
        batch = {"inputs": X[rows], "targets": Y[rows], "positions": positions}
        losses.append(float(step({k: tf.constant(v) for k, v in batch.items()})["loss"]))
    return losses


if __name__ == "__main__":
    traces = {name: trace(name) for name in VARIANTS}
    FILE.write_text(json.dumps(traces, indent=1) + "\n", encoding="utf-8")
