"""K ranks beside one: weak and strong scaling, the collective, and sharded steps.

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
vector that is reduced, the floor of its bytes (packed parameters times the ring factor) and the
time of this one collective by itself are printed beside. docs/scaling.md has the results.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from natdgp.distributed.rendezvous import rendezvous

ROWS = 1000
STEPS = 3


def launch(ranks: int, arguments: Sequence[str]) -> int:
    """Run this script on every rank; rank 0 alone prints."""
    shared = {
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    with rendezvous(ranks) as environments:
        processes = [
            subprocess.Popen(command, env={**os.environ, **shared, **environment})
            for environment in environments
        ]
        return max(process.wait() for process in processes)


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
    # No all-reduce sends fewer (Patarasuk & Yuan 2009, theorem 1).
    floor, sent = (8 * size * 2 * (K - 1) / K for size in (packed, packed + 2))
    print(
        f"  collective by itself       {1e3 * times['collective']:8.1f}   "
        f"{sent:,.0f} bytes a rank; the floor is {floor:,.0f}",
        flush=True,
    )


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
    arguments = parser.parse_args()
    if "HOROVOD_RANK" not in os.environ:
        return launch(arguments.ranks, sys.argv[1:])
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(os.environ["HOROVOD_RANK"])]})

    import horovod.tensorflow as hvd

    from natdgp.distributed.horovod_reducer import HorovodReducer

    hvd.init()
    reducer = HorovodReducer()
    for model in arguments.models:
        layers, M = (int(part) for part in model.split("x"))
        steps_of_ranks(reducer, layers, M, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
