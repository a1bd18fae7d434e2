"""K ranks beside one: weak and strong scaling, the collectives, sharded steps, and a cost model.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --models 3x256 --rounds 30

Every rank has a core to itself (pinned; one thread for TensorFlow) and Horovod over Gloo. The model
is that of training_step.py: D = 8, hidden width 8, float64, natural gradients for every q(u).
In every round each of these takes some steps in turn, so that what else the machine does falls on
all of them:

- `alone`: rank 0 steps and the others wait;
- `apart`: every rank steps for itself. What this loses is the machine's (memory, turbo), not ours;
- `together`: natdgp on K ranks, each with a batch of its own as large (weak scaling) or with its
  share of one (strong scaling);
- `sharded`: the same as the weak case, natural-gradient steps shared out.

Efficiency is the time alone over the time together (weak) or over K times it (strong). The packed
vector that is reduced, the floor of its bytes (packed parameters times the ring factor,
`natdgp.distributed.cost`) and the time of this one collective by itself are printed beside.

Then the parts of the cost model are measured: a step's time over the rows of a batch, collectives
over their size, natural-gradient steps over M; constants are fitted, and the model predicts what
8, 64 and 256 ranks would do. docs/scaling.md has the results and the assumptions for GPUs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROWS = 1000
STEPS = 3
STEP_SIZES = ((100, 8), (256, 8), (512, 4))
"""M and P of the natural-gradient steps that the cost model is fitted to."""
VECTORS = (1, 10_000, 100_000, 1_000_000)
"""Numbers in the collectives that it is fitted to."""


def launch(ranks: int, arguments: Sequence[str]) -> int:
    """Run this script on every rank."""
    beside = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = ["horovodrun", "-np", str(ranks), "--gloo", sys.executable, "-W", "ignore", __file__]
    prefix = "[0]<stdout>:"
    with subprocess.Popen(
        [*command, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        for line in launcher.stdout:
            if line.startswith(prefix):
                print(line.removeprefix(prefix), end="", flush=True)
    return launcher.returncode


class Cases:
    """Things to time on the ranks, in turn; every rank adds the same ones and measures together."""

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer
        self._cases: dict[str, Callable[[], Any]] = {}
        self._times: dict[str, list[float]] = {}

    def add(self, name: str, run: Callable[[], Any], *, ranks: int | None = None) -> None:
        """:param run: once; it is traced at once, by every rank.
        :param ranks: how many ranks run it, from 0; all by default.
        """
        takes_part = ranks is None or self._reducer.rank < ranks
        self._cases[name] = run if takes_part else lambda: None
        self._times[name] = []
        for _ in range(3):
            self._cases[name]()

    def measure(self, rounds: int) -> dict[str, float]:
        """Medians in seconds; of rank 0, whose steps together end when all ranks' do."""
        import tensorflow as tf

        for _ in range(rounds):
            for name, run in self._cases.items():
                self._reducer.total(tf.zeros([]))  # all start together
                run()
                for _ in range(STEPS):
                    start = time.perf_counter()
                    run()
                    self._times[name].append(time.perf_counter() - start)
        return {name: statistics.median(times) for name, times in self._times.items()}


def steps_of_ranks(reducer: Any, layers: int, M: int, rounds: int) -> None:
    """Print how training steps scale."""
    from natdgp.distributed.cost import ring_factor

    import training_step as one

    K, rank = reducer.size, reducer.rank
    X, Y = one.data()
    own = slice(rank * ROWS, (rank + 1) * ROWS)
    share = slice(rank * ROWS // K, (rank + 1) * ROWS // K)
    single = one.our_model(layers, M, X)
    together = one.our_model(layers, M, X, reducer)
    sharded = one.our_model(layers, M, X, reducer, placement="sharded")
    packed = sum(int(v.shape.num_elements()) for v in together.trainable_variables)

    cases = Cases(reducer)
    cases.add("alone", one.our_step(single, X[own], Y[own]), ranks=1)
    cases.add("apart", one.our_step(single, X[own], Y[own]))
    cases.add("weak", one.our_step(together, X[own], Y[own]))
    cases.add("strong", one.our_step(together, X[share], Y[share]))
    cases.add("sharded", one.our_step(sharded, X[own], Y[own]))
    cases.add("collective", collective(reducer, packed + 2))  # loss, rows
    times = cases.measure(rounds)
    if rank > 0:
        return
    alone = times["alone"]
    print(f"{layers} layers, M = {M}, {ROWS} rows: milliseconds a step, medians of {rounds} rounds")
    print(f"  alone                      {1e3 * alone:8.1f}")
    print(
        f"  apart                      {1e3 * times['apart']:8.1f}   {alone / times['apart']:.2f}"
    )
    for name, rows, work in (("weak", ROWS, 1), ("strong", ROWS // K, K), ("sharded", ROWS, 1)):
        label = f"{name}, {rows} rows a rank"
        efficiency = alone / work / times[name]
        print(f"  {label:27s}{1e3 * times[name]:8.1f}   efficiency {efficiency:.2f}")
    floor, sent = (8 * size * ring_factor(K) for size in (packed, packed + 2))
    print(
        f"  collective by itself       {1e3 * times['collective']:8.1f}   "
        f"{sent:,.0f} bytes a rank; the floor is {floor:,.0f}",
        flush=True,
    )


def cost_model(reducer: Any, models: Sequence[tuple[int, int]], rounds: int) -> None:
    """Measure the parts of the model, fit its constants and print what it predicts."""
    from natdgp.distributed.cost import Network

    import training_step as one
    from natdgp.training.placement import CORES, GPUS, Machine, choose_placement

    X, Y = one.data()
    cases = Cases(reducer)
    parts = (ROWS // 4, ROWS // 2, ROWS, 2 * ROWS)
    for layers, M in models:
        model = one.our_model(layers, M, X)
        for rows in parts:
            name = f"{layers}x{M} rows {rows}"
            cases.add(name, one.our_step(model, X[:rows], Y[:rows]), ranks=1)
    for M, P in STEP_SIZES:
        cases.add(f"step {M}x{P}", natural_step(M, P), ranks=1)
    for size in VECTORS:
        cases.add(f"total {size}", collective(reducer, size))
    times = cases.measure(rounds)
    if reducer.rank > 0:
        return
    K = reducer.size

    print("the parts of the cost model, milliseconds")
    for name, seconds in times.items():
        print(f"  {name:20s}{1e3 * seconds:10.3f}")
    squares, cubes = least_squares(
        [[P * M**2, P * M**3] for M, P in STEP_SIZES],
        [times[f"step {M}x{P}"] for M, P in STEP_SIZES],
    )
    fixed, per_byte = least_squares(
        [[1, 8 * size * 2 * (K - 1) / K] for size in VECTORS],
        [times[f"total {size}"] for size in VECTORS],
    )
    print(f"natural-gradient step: {squares:.2e} s for each M^2, {cubes:.2e} s for each M^3")
    print(f"collective: {1e3 * fixed:.2f} ms, {1e-9 / per_byte:.2f} GB/s  ({K} ranks)")
    # On 2 ranks a message cannot be told from a call; what is known of both is their sum.
    fitted = Machine(
        CORES.name,
        squares,
        cubes,
        Network(fixed, 0.0, 1 / per_byte, scatters=False),
        CORES.handling,
    )

    print("predicted: milliseconds a step of 1000 rows a rank, efficiency, placement")
    for layers, M in models:
        sizes = [(M, one.WIDTH)] * (layers - 1) + [(M, 1)]
        numbers = packed_numbers(sizes)
        at_rest, per_row = least_squares(
            [[1, rows] for rows in parts],
            [times[f"{layers}x{M} rows {rows}"] for rows in parts],
        )
        on_core = at_rest + per_row * ROWS
        on_gpu = GPU_LAUNCHES + flops(sizes, ROWS) / GPU_FLOPS
        on_gpu += sum(GPUS.step(*size) for size in sizes)
        for machine, alone in ((fitted, on_core), (GPUS, on_gpu)):
            print(f"  {layers} layers, M = {M}, {machine.name}: alone {1e3 * alone:.1f}")
            for ranks in (2, 8, 64, 256):
                together = alone + machine.network.all_reduce(8 * numbers, ranks)
                chosen = choose_placement(sizes, ranks, machine)
                together += min(0.0, chosen.sharded_seconds - chosen.replicated_seconds)
                kind = "sharded" if chosen.sharded else "replicated"
                print(f"    {ranks:4d}  {1e3 * together:8.1f}  {alone / together:.2f}  {kind}")


GPU_FLOPS = 2e12
"""Assumed: float64 products a second of a data-centre GPU, a fifth of an A100's peak."""
GPU_LAUNCHES = 5e-3
"""Assumed: seconds of launching the some 1000 small operations of a step."""


def flops(sizes: Sequence[tuple[int, int]], rows: int) -> float:
    """Of the products of a step: three with half of each q_sqrt, and of each layer three more."""
    return sum(3 * P * M**2 * rows + 6 * M**2 * rows for M, P in sizes)


def packed_numbers(sizes: Sequence[tuple[int, int]]) -> int:
    """In the gradients of q(u)."""
    from natdgp.training.sharded_steps import packed_length

    return sum(P * packed_length(M) for M, P in sizes)


def natural_step(M: int, P: int) -> Callable[[], Any]:
    import numpy as np
    import tensorflow as tf

    from natdgp import NaturalGradient

    generator = np.random.default_rng(0)
    q_mu = tf.constant(generator.normal(size=(M, P)))
    L = np.tril(0.01 * generator.normal(size=(P, M, M))) + np.eye(M)
    noise = 0.01 * np.tril(generator.normal(size=(P, M, M)))
    optimizer = NaturalGradient(0.1)
    q_sqrt, gradient = tf.constant(L), tf.constant(L + noise)
    return compiled(lambda: optimizer.propose(q_mu, q_sqrt, q_mu, gradient))


def least_squares(rows: Any, seconds: Any) -> tuple[float, float]:
    """Two coefficients, neither below 0, that make the relative errors small."""
    from scipy.optimize import nnls

    rows, seconds = numpy_of(rows), numpy_of(seconds)
    solution, _ = nnls(rows / seconds[:, None], seconds / seconds)
    return float(solution[0]), float(solution[1])


def numpy_of(numbers: Any) -> Any:
    import numpy as np

    return np.asarray(numbers, dtype=float)


def collective(reducer: Any, size: int) -> Callable[[], Any]:
    """An all-reduce by itself. Of a variable, for TensorFlow would fold one of constants away;
    Horovod knows it by the name of its tensor."""
    import tensorflow as tf

    variable = tf.Variable(tf.zeros([size], tf.float64))
    return compiled(lambda: reducer.total(tf.identity(variable, name=f"vector_{size}")))


def compiled(run: Callable[[], Any]) -> Callable[[], Any]:
    import tensorflow as tf

    graph: Callable[[], Any] = tf.function(run, autograph=False)
    return graph


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", nargs="+", default=["3x100", "3x256"], metavar="LAYERSxM")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps-only", action="store_true", help="leave the cost model out")
    arguments = parser.parse_args()
    if "HOROVOD_RANK" not in os.environ:
        return launch(arguments.ranks, sys.argv[1:])
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(os.environ["HOROVOD_RANK"])]})

    import horovod.tensorflow as hvd

    from natdgp.distributed.horovod_reducer import HorovodReducer

    hvd.init()
    reducer = HorovodReducer()
    models = []
    for model in arguments.models:
        layers, M = (int(part) for part in model.split("x"))
        models.append((layers, M))
    for layers, M in models:
        steps_of_ranks(reducer, layers, M, arguments.rounds)
    if not arguments.steps_only:
        cost_model(reducer, models, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
