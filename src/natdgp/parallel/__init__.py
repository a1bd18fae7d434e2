"""What a rank is, and how ranks agree on one gradient."""

from natdgp.parallel.reducer import OneProcess, Reducer

__all__ = ["OneProcess", "Reducer"]
