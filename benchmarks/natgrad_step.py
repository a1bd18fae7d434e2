"""The natural-gradient step against GPflow's, and against one bare Cholesky.

    python benchmarks/natgrad_step.py
    python benchmarks/natgrad_step.py --sizes 256x8 512x4 --dtype float64 --rounds 50

Each side is a tf.function of one step on ready gradients. In every round each side runs once, one
after the other, so that whatever else the machine does falls on all of them; medians over rounds
are printed, and ratios of medians. The parameters are put back before every step.

Three kinds of problem can be measured. `short`: ||C||_F = 1/2, as late in training. `long`: the
eigenvalues of C = 2 gamma P reach 10, as in the first steps. Both take the same time, since
definiteness is read from the factorisation and not tested for. `indefinite`: they are between -10
and 10, so that `fallback`, which is "ours", computes the exact step in vain and then the guaranteed
one; the guaranteed one alone is the last column but one.

One run on two cores, 21 rounds, `short` steps, milliseconds (GPflow / ours / one Cholesky) and how
many times faster than GPflow:

    M x P           float64                     float32
    50 x 1       0.97 /   0.88 /  0.31  1.1    1.17 /  0.83 /  0.28  1.4
    50 x 30      5.46 /   2.32 /  0.75  2.4    3.55 /  2.18 /  0.65  1.6
    100 x 1      1.40 /   0.92 /  0.31  1.5    1.86 /  1.45 /  0.39  1.3
    100 x 5      5.98 /   2.31 /  0.68  2.6    3.76 /  2.50 /  0.80  1.5
    100 x 30    19.6  /   5.21 /  1.43  3.8   10.5  /  5.00 /  1.46  2.1
    256 x 1      8.61 /   3.53 /  1.07  2.4    6.69 /  3.68 /  0.98  1.8
    256 x 8     50.3  /  11.3  /  3.22  4.5   23.3  /  7.91 /  2.57  2.9
    256 x 30   189    /  53.7  /  9.80  3.5   81.4  / 23.4  /  6.54  3.5
    512 x 1     55.6  /  11.6  /  5.89  4.8   21.3  /  5.60 /  2.80  3.8
    512 x 4    155    /  27.2  / 11.3   5.7   65.0  / 13.2  /  5.24  4.9
    1024 x 1   272    /  37.6  / 25.5   7.2  168    / 22.1  / 20.2   7.6
    1024 x 4   961    / 156    / 51.8   6.2  512    / 73.8  / 39.1   6.9

Of every figure about 0.2 ms is the call of the function; machines shared with others move single
figures by a tenth, 50 x 1 between 1.1 and 1.4.

The guaranteed step takes, on `short` steps, in processor time, 1.29 and 1.28 times ours at 100 x 8
(float64 and float32) and 1.15 and 1.25 times at 256 x 8: six Lanczos products. On `indefinite`
steps, where ours does both, it takes 0.6 of the time.

Tried, in float64:

- One Cholesky of the reversed matrix and one triangular solve, no blocks (numbers as they stand in
  the derivation): 1.2 to 1.9 times the time of the blocked form from M = 256 on; at 512 x 4
  TensorFlow's Cholesky runs at a third of the rate of its matrix products. Blocks of 64, 128, 256
  rows: 7.8, 6.3, 7.6 ms of factorisation at 256 x 8, and 18.6, 15.2, 14.9 at 512 x 4. Hence 128.
- In a block, U^-1 and a product with it instead of a solve for all rows at once: half as slow again
  at 100 x 8 and 100 x 30 (1.9 against 1.3 ms, 5.3 against 3.4), a quarter at 256 x 8, 0.1 ms faster
  at 50 x 1.
- The product L' dLoss/dL in columns of 32, 64, 128, whole: 1.5, 1.7, 1.8, 1.9 ms at 100 x 8; 3.5,
  4.0, 4.2, 5.6 at 256 x 8; 11.0, 11.0, 10.9, 26.2 at 1024 x 1. Hence 32, and no more than eight
  blocks.
- Reading definiteness from the eigenvalues of small blocks, before their Cholesky: half as slow
  again on `long` steps, and slower than GPflow at 50 x 1. A bound (||block - I||_F < 1) that spares
  the eigenvalues made `short` steps as fast as now, not `long` ones. TensorFlow's Cholesky fails by
  NaN, so neither is needed.
- Reversing rows and columns only inside blocks, adding the identity only to blocks, packing the
  triangle from half of the matrix, reading the sum of the gradients instead of testing each number,
  one variable for all counts: each 1 to 5 percent.
- The branch for steps that would fail as a function that is not inlined: 5 percent at 50 x 1. All
  conditions together (valid? finite?) cost 0.1 ms of 0.8 at 100 x 1.
- XLA on the CPU is four to five times slower (its Cholesky and its triangular solve).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import gpflow
import numpy as np
import tensorflow as tf

from natdgp.natgrad.optimizer import NaturalGradient

LATENT_GPS = {50: [1, 30], 100: [1, 5, 30], 256: [1, 8, 30], 512: [1, 4], 1024: [1, 4]}
SIZES = [f"{M}x{P}" for M, several in LATENT_GPS.items() for P in several]
GAMMA = 0.1
KINDS = ["short", "long", "indefinite"]


class Problem:
    """Parameters, gradients, and a matrix of the same size to take one Cholesky of."""

    def __init__(self, M: int, P: int, dtype: str, kind: str) -> None:
        generator = np.random.default_rng(0)
        L = np.eye(M) + np.tril(generator.normal(size=(P, M, M))) * 0.3 / np.sqrt(M)
        G = generator.normal(size=(P, M, M))
        C = np.einsum("pmi,pmj->pij", G, G) if kind == "long" else G + np.transpose(G, (0, 2, 1))
        norm = np.linalg.norm(C, ord=None if kind == "short" else 2, axis=(1, 2))
        C *= (0.5 if kind == "short" else 10.0) / norm[:, None, None]
        # C = gamma (L' 2 G_S L), so dLoss/dL = tril(2 G_S L) = tril(L'^-1 C) / gamma.
        L_grad = np.tril(np.linalg.solve(np.transpose(L, (0, 2, 1)), C)) / GAMMA
        self.q_mu = generator.normal(size=(M, P)).astype(dtype)
        self.q_sqrt = L.astype(dtype)
        self.matrix = tf.constant(np.eye(M) + C @ np.transpose(C, (0, 2, 1)), dtype)
        pack = gpflow.utilities.triangular().inverse
        self.gradients = (
            tf.constant(generator.normal(size=(M, P)), dtype),
            pack(tf.constant(L_grad, dtype)),
        )


class Side:
    """One way to spend time on a problem."""

    def __init__(self, run: Callable[[], Any], reset: Callable[[], None] = lambda: None) -> None:
        self.run = tf.function(run)
        self.reset = reset
        self.times: list[float] = []
        self.measure()  # traces
        self.times.clear()

    def measure(self) -> None:
        self.reset()
        start = time.perf_counter()
        self.run()
        self.times.append(time.perf_counter() - start)

    @property
    def median(self) -> float:
        return statistics.median(self.times) * 1e3


def step_side(problem: Problem, optimizer: gpflow.optimizers.NaturalGradient) -> Side:
    q_mu = gpflow.Parameter(problem.q_mu, dtype=problem.q_mu.dtype)
    q_sqrt = gpflow.Parameter(
        problem.q_sqrt, transform=gpflow.utilities.triangular(), dtype=problem.q_sqrt.dtype
    )

    def run() -> None:
        # The name by which GPflux calls the step; GPflow has no public one for ready gradients.
        optimizer._natgrad_apply_gradients(*problem.gradients, q_mu, q_sqrt)

    def reset() -> None:
        q_mu.assign(problem.q_mu)
        q_sqrt.assign(problem.q_sqrt)

    return Side(run, reset)


def measure(M: int, P: int, dtype: str, kind: str, rounds: int) -> dict[str, Side]:
    problem = Problem(M, P, dtype, kind)
    guaranteed = NaturalGradient(GAMMA, positive_definite="guaranteed")
    sides = {
        "ours": step_side(problem, NaturalGradient(GAMMA)),
        "guaranteed": step_side(problem, guaranteed),
        "Cholesky": Side(lambda: tf.linalg.cholesky(problem.matrix)),
    }
    if kind != "indefinite":  # where GPflow's raises
        sides["GPflow"] = step_side(problem, gpflow.optimizers.NaturalGradient(GAMMA))
    for _ in range(rounds):
        for side in sides.values():
            side.measure()
    return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="MxP")
    parser.add_argument("--dtype", nargs="+", default=["float64", "float32"])
    parser.add_argument("--kind", nargs="+", default=["short"], choices=KINDS)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    print(f"milliseconds a step, medians of {arguments.rounds} alternating rounds")
    print(
        "M x P      type     steps         GPflow     ours  one Cholesky  GPflow/ours"
        "  ours/Cholesky  guaranteed  guaranteed/ours"
    )
    for dtype in arguments.dtype:
        for size in arguments.sizes:
            M, P = (int(part) for part in size.split("x"))
            for kind in arguments.kind:
                sides = measure(M, P, dtype, kind, arguments.rounds)
                ms = {name: side.median for name, side in sides.items()}
                theirs = ms.get("GPflow", float("nan"))
                print(
                    f"{size:10s} {dtype:8s} {kind:10s}{theirs:9.2f}{ms['ours']:9.2f}"
                    f"{ms['Cholesky']:14.2f}{theirs / ms['ours']:13.2f}"
                    f"{ms['ours'] / ms['Cholesky']:15.2f}{ms['guaranteed']:12.2f}"
                    f"{ms['guaranteed'] / ms['ours']:17.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
