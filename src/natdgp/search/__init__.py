"""Searches on this machine: Determined's searchers over trials that are local runs."""
