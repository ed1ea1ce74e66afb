"""Exact log-probabilities and divergences of responses, without N × V logits and with shared prompts.

`tokenization`, `placement` and `packing` turn pairs into rows, `attention` treats every response as if it
stood alone, `backbone` finds the parts of a model, `head`, `tiled` and `divergence` compute over the
vocabulary tile by tile, `log_probs` combines them, and `layout_probe` measures on load whether a model can
share prompts.
"""
