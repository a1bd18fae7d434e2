"""What is saved of a model: its record, its weights, and the checksums of its files."""
