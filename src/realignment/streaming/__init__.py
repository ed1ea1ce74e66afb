"""Judging and triage of a table that is larger than memory: what the two stages give, part by part.

What is held at once is one part, and of every pair a few numbers: two hashes of 8 bytes, which tell repeated
rows, 8 bytes by which RETAIN pairs are drawn, and where labels are the oracle some 30 bytes more.
"""

from realignment.streaming.judging import TriagedPairs, judge_and_triage
from realignment.streaming.reading import CleanPairs, read_pairs

__all__ = ["CleanPairs", "TriagedPairs", "judge_and_triage", "read_pairs"]
