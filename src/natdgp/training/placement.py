"""Whether ranks repeat every natural-gradient step or share them out, by what either costs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import gpflux
import tensorflow as tf

from natdgp.distributed.cost import Network
from natdgp.distributed.reducer import Reducer
from natdgp.training.sharded_steps import packed_length, shares_of_ranks

logger = logging.getLogger("natdgp.training")


@dataclass(frozen=True)
class Machine:
    """What a rank computes on, and what connects it to the others."""

    name: str
    square: float
    """Seconds that the step of one latent GP takes for each of its M^2 ..."""
    cube: float
    """... and of its M^3 numbers."""
    network: Network
    handling: float = 0.0
    """Seconds that sharding takes to cut up and put together each byte of q(u)'s gradients."""

    def step(self, M: int, latent_gps: int) -> float:
        """Seconds of one rank's natural-gradient step on latent GPs of a layer."""
        return latent_gps * (self.square * M**2 + self.cube * M**3)


CORES = Machine(
    "one core a rank, over Gloo",
    square=1.9e-8,
    cube=3.3e-11,
    network=Network(call=1.4e-3, message=0.0, bandwidth=0.77e9, scatters=False),
    handling=2.5e-9,
)
"""Measured by benchmarks/scaling.py; see docs/scaling.md."""

GPUS = Machine(
    "one GPU a rank, over NCCL",
    square=1e-9,
    cube=2.5e-12,
    network=Network(call=1e-3, message=5e-6, bandwidth=20e9),
    handling=1e-11,
)
"""Assumed, not measured; docs/scaling.md says from what."""


@dataclass(frozen=True)
class Placement:
    """Where natural-gradient steps are taken, and why."""

    sharded: bool
    replicated_seconds: float
    """Of all steps on every rank, and of the bytes of their gradients in the one all-reduce."""
    sharded_seconds: float
    """Of the largest share of the steps, and of the two collectives that go with it."""
    machine: Machine

    def __str__(self) -> str:
        return (
            f"{'sharded' if self.sharded else 'replicated'}; with {self.machine.name}, "
            f"natural-gradient steps are expected to take {1e3 * self.replicated_seconds:.2g} ms "
            f"replicated, {1e3 * self.sharded_seconds:.2g} ms sharded"
        )


def choose_placement(
    sizes: Sequence[tuple[int, int]], ranks: int, machine: Machine, itemsize: int = 8
) -> Placement:
    """The faster placement, by the model of the machine; replicated if they are equal.

    It is a function of its arguments and not a measurement, so that all ranks choose alike, and a
    resumed run as the one that was interrupted.

    :param sizes: (M, P) of every layer that natural gradients train.
    :param ranks: K.
    :param machine: what the ranks are.
    :param itemsize: bytes of a number.
    """
    network, shares = machine.network, shares_of_ranks(sizes, ranks)
    steps = sum(machine.step(M, P) for M, P in sizes)
    packed = sum(P * packed_length(M) for M, P in sizes)
    bytes_alone = network.all_reduce(packed * itemsize, ranks) - network.all_reduce(0, ranks)

    largest = max(
        sum(machine.step(sizes[one.layer][0], one.stop - one.start) for one in share)
        for share in shares
    )
    longest = max(
        sum((one.stop - one.start) * packed_length(sizes[one.layer][0]) for one in share)
        for share in shares
    )
    padded = ranks * longest * itemsize
    exchange = network.reduce_scatter(padded, ranks) + network.gather(padded, ranks)
    sharded = largest + exchange + machine.handling * packed * itemsize
    replicated = steps + bytes_alone
    return Placement(sharded < replicated, replicated, sharded, machine)


def shards_steps(
    placement: Literal["replicated", "sharded", "auto"],
    layers: Sequence[gpflux.layers.GPLayer],
    reducer: Reducer,
) -> bool:
    """Whether ranks share natural-gradient steps out; rank 0's log says what `auto` chose.

    :param placement: the setting.
    :param layers: those that natural gradients train.
    :param reducer: the ranks.
    """
    if reducer.size == 1 or not layers:
        return False
    if placement != "auto":
        return placement == "sharded"
    machine = GPUS if tf.config.list_physical_devices("GPU") else CORES
    sizes = [(layer.q_mu.shape[0], layer.q_mu.shape[1]) for layer in layers]
    chosen = choose_placement(sizes, reducer.size, machine, layers[0].q_mu.dtype.size)
    if reducer.rank == 0:
        logger.info("natural_gradient.placement is auto: %s", chosen)
    return chosen.sharded
