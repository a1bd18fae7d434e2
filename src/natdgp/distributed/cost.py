"""How long collectives take: the usual model of rings, latency and bandwidth.

In a ring of K ranks (Thakur, Rabenseifner & Gropp 2005, section 4) every rank sends K - 1 messages
of n / K bytes to reduce n bytes to their owners, and as many to gather them; an all-reduce is both.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """What ranks are connected by, and the software that uses it."""

    call: float
    """Seconds of any collective, however small: until all ranks know that all have asked for it."""
    message: float
    """Seconds of any message, however small."""
    bandwidth: float
    """Bytes a second that a rank sends while it receives as many."""
    scatters: bool = True
    """Whether there is a reduce-scatter; else an all-reduce takes its place."""

    def all_reduce(self, size: float, ranks: int) -> float:
        """Seconds of adding up n bytes so that all ranks have the sum.

        :param size: n.
        :param ranks: K; on one rank nothing is sent.
        """
        return self.call + 2 * self._half_ring(size, ranks) if ranks > 1 else 0.0

    def reduce_scatter(self, size: float, ranks: int) -> float:
        """Seconds of adding up n bytes so that each rank has a K-th of the sum."""
        return self.gather(size, ranks) if self.scatters else self.all_reduce(size, ranks)

    def gather(self, size: float, ranks: int) -> float:
        """Seconds of giving all ranks n bytes of which each has a K-th."""
        return self.call + self._half_ring(size, ranks) if ranks > 1 else 0.0

    def _half_ring(self, size: float, ranks: int) -> float:
        return (ranks - 1) * (self.message + size / ranks / self.bandwidth)


def ring_factor(ranks: int) -> float:
    """Bytes that a rank sends in an all-reduce for every byte of the vector: 2 (K - 1) / K.

    No all-reduce sends fewer (Patarasuk & Yuan 2009, theorem 1).
    """
    return 2 * (ranks - 1) / ranks
