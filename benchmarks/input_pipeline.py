"""The input pipeline against shuffle-and-repeat, on the flights at batch 1024.

Prints the milliseconds a batch of both, and how soon the first batch comes from two places.

On two otherwise idle cores, two runs: shuffle-and-repeat 2.6 and 2.7 ms a batch, ours 0.42 and
0.26, 6 and 10 times faster; the first batch after 340 to 420 ms (the buffer fills) against 9 to
14 ms, from step 0 and from step 1,000,000 alike. Under load both slow down and the ratio grows.

Tried for ours, side by side on busy cores where ours took 0.52 and 0.58 ms: permuting each position
before batching, 30 and 44 ms (ops run once a position); one gather of inputs and targets together,
0.43 and 0.49, and a serial map, 0.42 and 0.40, neither clear of the noise; two parallel calls and a
prefetch of two in place of autotuning, 1.0 and 0.9. `Dataset.range` and `batch` alone, which
sharding by position needs, take 0.15 and 0.20.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from natdgp.data.data_settings import FlightsSettings
from natdgp.data.pipeline import training_dataset
from natdgp.data.prepare import Rows, prepare

BATCH = 1024
ROUNDS = 10
BATCHES_PER_ROUND = 200


def buffered(rows: Rows) -> tf.data.Dataset:
    """The textbook pipeline: a buffer of all rows, refilled and drawn from row by row."""
    examples = tf.data.Dataset.from_tensor_slices((rows.X, rows.Y))
    shuffled = examples.shuffle(len(rows), seed=0).repeat()
    return shuffled.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def stateless(rows: Rows, start_step: int = 0) -> tf.data.Dataset:
    return training_dataset(rows, global_batch_size=BATCH, seed=0, start_step=start_step)


def milliseconds_per_batch(batches: Iterator[Any]) -> float:
    """The mean over a round: single batches come out of prefetch's buffer and tell little."""
    start = time.perf_counter()
    for _ in range(BATCHES_PER_ROUND):
        next(batches)
    return (time.perf_counter() - start) / BATCHES_PER_ROUND * 1e3


def milliseconds_to_first_batch(dataset: tf.data.Dataset) -> float:
    start = time.perf_counter()
    next(iter(dataset))
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    rows = prepare(FlightsSettings(source="flights"), "float64").train
    print(f"{len(rows)} rows of {rows.X.shape[1]}, batch {BATCH}, float64")
    print("time to the first batch, median of 5 (dataset built beforehand):")
    for name, dataset in {
        "buffered": buffered(rows),
        "stateless, step 0": stateless(rows),
        "stateless, step 1,000,000": stateless(rows, 1_000_000),
    }.items():
        first = statistics.median(milliseconds_to_first_batch(dataset) for _ in range(5))
        print(f"  {name:27s}{first:8.1f} ms")

    sides = {"buffered": iter(buffered(rows)), "stateless": iter(stateless(rows))}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for batches in sides.values():
        milliseconds_per_batch(batches)  # fills buffers, lets autotuning settle
    for _ in range(ROUNDS):
        for name, batches in sides.items():
            times[name].append(milliseconds_per_batch(batches))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"a batch, median of {ROUNDS} alternating rounds of {BATCHES_PER_ROUND}:")
    for name, median in medians.items():
        print(f"  {name:27s}{median:8.3f} ms ({min(times[name]):.3f} to {max(times[name]):.3f})")
    print(f"  ratio {medians['buffered'] / medians['stateless']:.1f}")


if __name__ == "__main__":
    main()
