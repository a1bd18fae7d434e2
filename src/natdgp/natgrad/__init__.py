"""Natural-gradient steps on q(u): the mathematics on tensors, and the optimizer on top."""
