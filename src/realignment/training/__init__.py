"""Training with the hybrid objective.

`setup` loads what a run needs, `run` trains, `trainer` is the transformers trainer, `collation` divides a
batch into parts, `forward` is the one pass over a part, `online_weights` computes impact weights in the step,
`reference` caches the reference on disk, `figures` and `callbacks` observe.
"""
