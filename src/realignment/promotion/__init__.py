"""The gate that a candidate has to pass, and the summary of a run for scripts."""
