"""Attack both models: wrappers around requests that a violating answer would satisfy, and their success."""
