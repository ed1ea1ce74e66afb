"""Exact log-probabilities and divergences of responses, without N × V logits and with shared prompts.

`tokenization` and `packing` lay pairs out in rows, `attention` keeps every response as if it stood alone,
`backbone` finds the parts of a model, `head`, `tiled` and `divergence` compute over the vocabulary tile by
tile, `log_probs` puts them together, and `layout_probe` measures on load whether a model allows it.
"""
