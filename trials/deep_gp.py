"""A deep GP trial. Copy it, and change what your task needs."""

from natdgp.determined import DeepGPTrial as DeepGPTrialBase


class DeepGPTrial(DeepGPTrialBase):
    """Override `build_model`, a data loader or `keras_callbacks` here."""
