"""The hybrid objective: the losses, how a batch combines them, and the examples that it is computed on."""
