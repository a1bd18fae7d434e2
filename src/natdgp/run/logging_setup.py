"""What the stack says about itself, kept off the screen."""

from __future__ import annotations

import logging
import warnings


def silence_the_stack() -> None:
    """Silence the stack's warnings and TensorFlow's log; natdgp's own log stays."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("natdgp").setLevel(logging.INFO)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
