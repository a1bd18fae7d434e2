"""Deep Gaussian processes with natural gradients, from a laptop to a Determined cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from natdgp.natgrad.optimizer import NaturalGradient
    from natdgp.results.trained import load

__all__ = ["NaturalGradient", "__version__", "load"]


def __getattr__(name: str) -> object:
    # TensorFlow is imported only when it is needed, so that the command line answers at once.
    if name == "load":
        from natdgp.results.trained import load

        return load
    if name == "NaturalGradient":
        from natdgp.natgrad.optimizer import NaturalGradient

        return NaturalGradient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
