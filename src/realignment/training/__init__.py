"""Training with the hybrid objective.

`setup` loads what a run needs, `run` trains, `trainer` is the transformers trainer, `forward` its one pass
over a part of a batch, `online_weights` re-computes impact weights in the step, `reference` keeps the
reference on disk.
"""
