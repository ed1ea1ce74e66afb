"""Judging and triage of a table that is larger than memory: the results of both stages, part by part.

What is held at once is one part, and of every pair a few numbers: two hashes of 8 bytes, which tell repeated
rows, 8 bytes by which RETAIN pairs are drawn, and where labels are the oracle some 30 bytes more.
"""

from realignment.judge_stream.reading import CleanPairs, read_pairs
from realignment.judge_stream.triage import TriagedPairs, judge_and_triage

__all__ = ["CleanPairs", "TriagedPairs", "judge_and_triage", "read_pairs"]
