"""Measure the oracle's errors: a probability sample of the judged pairs, compared with the truth."""
