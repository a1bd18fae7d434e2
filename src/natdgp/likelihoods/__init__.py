"""Kinds of target: a file for each, which holds its settings, its density and its figures."""
