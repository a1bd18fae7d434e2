"""The same trial without a cluster: contexts that record, and the run around them."""
