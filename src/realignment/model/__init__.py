"""Base models: one string names where a model comes from; what is used is a local folder, checked."""
