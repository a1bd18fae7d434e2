"""The layers of a deep GP, one file for each kind."""
