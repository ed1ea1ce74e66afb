"""Log-probabilities and exact divergences over the vocabulary, in tiles: never N × V logits."""
