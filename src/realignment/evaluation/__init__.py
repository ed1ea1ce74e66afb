"""Measure what a model does before and after re-alignment, every figure with its uncertainty."""
