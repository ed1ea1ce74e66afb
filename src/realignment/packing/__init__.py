"""Pairs as tokens, laid out without padding; attention in which a response sees its prompt and itself."""
