"""What a rank is, and how ranks agree on one gradient."""

from natdgp.parallel.reducer import OneProcess, Reducer
from natdgp.parallel.weighted import packed_sum, unpacked_means

__all__ = ["OneProcess", "Reducer", "packed_sum", "unpacked_means"]
