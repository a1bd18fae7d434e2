"""What every rank runs in test_ranks.py: trains many small models and writes what it holds.

python -m tests.integration.rank_program FOLDER            (one process)
horovodrun -np K python -m tests.integration.rank_program FOLDER
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpflow
import gpflux.architectures
import numpy as np
import tensorflow as tf

from natdgp.data.pipeline import evaluation_dataset, training_dataset
from natdgp.data.prepare import Rows
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.builder import TaskShape
from natdgp.settings.schema import Settings
from natdgp.training.assembly import build_optimizers, build_training_model
from natdgp.training.drift import Drift, check_drift
from natdgp.training.model import DeepGPModel
from natdgp.training.steppers import Aggregation
from tests.conftest import FloatArray

BATCH = 60
STEPS = 50
VALIDATION = {"203 rows": 203, "3 rows": 3}
Arrays = dict[str, FloatArray]

VARIANTS: dict[str, dict[str, Any]] = {
    "one layer, exact": {
        "model": {"layers": 1},
        "natural_gradient": {"positive_definite": "exact"},
    },
    "two layers": {},
    "two narrow layers, two samples": {"model": {"hidden_width": 2, "num_samples": 2}},
    "three layers, all guaranteed": {
        "model": {"layers": 3},
        "natural_gradient": {"layers": "all", "gamma": 0.05, "positive_definite": "guaranteed"},
    },
    "student_t, all in a trust region": {
        "model": {"likelihood": {"name": "student_t"}},
        "natural_gradient": {"layers": "all", "max_kl": 0.5},
    },
    "three unlike layers, sharded": {
        "model": {"layers": 3, "inducing_points": [6, 15, 9]},
        "natural_gradient": {"layers": "all", "gamma": 0.05, "placement": "sharded"},
        "scatters": True,  # as over NCCL; the next one as over Gloo
    },
    "one latent GP, sharded": {"natural_gradient": {"placement": "sharded"}},
    "adam alone": {"natural_gradient": {"layers": "none"}},
    "two layers, aggregated": {"aggregation": Aggregation(3)},
    "student_t, all aggregated": {
        "model": {"likelihood": {"name": "student_t"}},
        "natural_gradient": {"layers": "all", "gamma": 0.05},
        "aggregation": Aggregation(3),
    },
}
SOME = (
    "two layers",
    "student_t, all aggregated",
    "three layers, all guaranteed",
    "three unlike layers, sharded",
)
"""Those that more than two ranks run: starting and tracing takes its time on every rank."""

EVALUATED = ("two layers", "student_t, all in a trust region")


def rows(count: int, seed: int) -> Rows:
    """Rows of a noisy wave, some of them outliers."""
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(count, 3))
    Y = np.sin(2 * X[:, :1]) + 0.5 * X[:, 1:2] + 0.1 * generator.standard_t(3, size=(count, 1))
    return Rows(X, Y)


TRAIN = rows(400, 0)


def build(variant: dict[str, Any], reducer: Reducer) -> DeepGPModel:
    settings = Settings.read(
        {
            "global_batch_size": BATCH,
            "model": {"layers": 2, "inducing_points": 12, **variant.get("model", {})},
            "natural_gradient": {"gamma": 0.1, **variant.get("natural_gradient", {})},
            "evaluation": {"num_samples": 4, "batch_size": 32},
        },
        {"source": "flights"},
    )
    model = build_training_model(
        settings,
        TaskShape(num_data=len(TRAIN), input_dim=3, output_dim=1),
        np.array([2.0]),
        seed=7,
        X=TRAIN.X if reducer.rank == 0 else None,
        reducer=reducer,
        aggregation=variant.get("aggregation"),
    )
    model.compile(optimizer=build_optimizers(settings, model))
    return model


def train(model: DeepGPModel, ranks: Reducer, steps: int = STEPS) -> list[float]:
    batches = training_dataset(
        TRAIN,
        global_batch_size=BATCH,
        seed=7,
        start_step=0,
        num_shards=ranks.size,
        wrap=lambda blocks: blocks.shard(ranks.size, ranks.rank),
    )
    step = tf.function(model.train_step)
    return [float(step(batch)["loss"]) for batch in batches.take(steps)]


def evaluate(model: DeepGPModel, ranks: Reducer, count: int) -> Arrays:
    batches = evaluation_dataset(
        rows(count, 1),
        global_batch_size=32,
        num_shards=ranks.size,
        wrap=lambda blocks: blocks.shard(ranks.size, ranks.rank),
    )
    model.reset_metrics()
    step = tf.function(model.test_step, reduce_retracing=True)
    figures = [step(batch) for batch in batches][-1]
    return {name: value.numpy() for name, value in figures.items()}


def variables(model: DeepGPModel) -> Arrays:
    held = [*model.trainable_variables, *model.optimizer.variables]
    return {f"{number} {variable.name}": variable.numpy() for number, variable in enumerate(held)}


def over_horovod(*, scatters: bool | None = None) -> Reducer:
    from natdgp.distributed.horovod_reducer import (
        HorovodReducer,  # not where one process runs alone
    )

    return HorovodReducer(scatters=scatters)


def run_variants(reducer: Reducer) -> Arrays:
    held: Arrays = {}
    for name in VARIANTS if reducer.size <= 2 else SOME:
        variant = VARIANTS[name]
        scatters = reducer.size > 1 and variant.get("scatters", False)
        model = build(variant, over_horovod(scatters=True) if scatters else reducer)
        losses = train(model, reducer)
        check_drift(model)
        held[f"{name}/loss"] = np.array(losses)
        held |= {f"{name}/variable {key}": value for key, value in variables(model).items()}
        if name in EVALUATED:
            for rows_name, count in VALIDATION.items():
                figures = evaluate(model, reducer, count)
                held |= {f"{name}/{rows_name} {key}": value for key, value in figures.items()}
    return held


class NotReducing:
    """A rank that keeps its gradients to itself, as each does in the naive combination."""

    def __init__(self, ranks: Reducer) -> None:
        self.rank, self.size = ranks.rank, ranks.size
        self.broadcast, self.gather, self.scatter = ranks.broadcast, ranks.gather, ranks.scatter
        self.announce = ranks.announce

    def total(self, tensor: tf.Tensor) -> tf.Tensor:
        """Nothing but its own."""
        return tensor


def run_without_reduction(ranks: Reducer) -> Arrays:
    model = build({}, NotReducing(ranks))
    train(model, ranks)
    try:
        check_drift(model)
    except Drift as error:
        message = str(error)
    else:
        message = ""
    return {"drift": np.array(message), **variables(model)}


def run_stock(ranks: Reducer) -> Arrays:
    """Stock GPflux under Horovod's DistributedOptimizer, as Determined's notes would have it."""
    import horovod.tensorflow.keras as hvd

    np.random.seed(0)
    tf.random.set_seed(0)
    config = gpflux.architectures.Config(
        num_inducing=12, inner_layer_qsqrt_factor=1e-3, likelihood_noise_variance=0.1, whiten=True
    )
    deep_gp = gpflux.architectures.build_constant_input_dim_deep_gp(TRAIN.X, 2, config)
    model = deep_gp.as_training_model(gpflux.optimization.NatGradModel)
    model.natgrad_layers = True
    adam = hvd.DistributedOptimizer(tf.keras.optimizers.Adam(0.01))
    model.compile(optimizer=[*(gpflow.optimizers.NaturalGradient(0.1) for _ in range(2)), adam])
    mine = slice(ranks.rank, None, ranks.size)
    model.fit(
        {"inputs": TRAIN.X[mine], "targets": TRAIN.Y[mine]},
        batch_size=10,
        epochs=1,
        verbose=0,
        shuffle=False,
    )
    return {f"{number} {v.name}": v.numpy() for number, v in enumerate(model.trainable_variables)}


PROGRAMS: dict[str, Callable[[Reducer], Arrays]] = {
    "variants": run_variants,
    "without_reduction": run_without_reduction,
    "stock": run_stock,
}


def main(folder: Path, programs: list[str]) -> None:
    ranks: Reducer = OneProcess()
    if "HOROVOD_RANK" in os.environ:
        import horovod.tensorflow as hvd

        hvd.init()
        ranks = over_horovod()
    for name in programs:
        held = PROGRAMS[name](ranks)
        np.savez(folder / f"{name}-{ranks.rank}-of-{ranks.size}.npz", **held)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
