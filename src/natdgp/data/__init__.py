"""Data: sources, division, scaling and the stateless input pipeline."""
