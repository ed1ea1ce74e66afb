"""Judging and triage of a table that is larger than memory: the results of both stages, part by part.

In memory are one part at a time, and a few numbers for every pair: two hashes of 8 bytes, to find repeated
rows, 8 bytes to draw RETAIN pairs, and where labels are the oracle some 30 bytes more.
"""

from realignment.judge_stream.reading import CleanPairs, read_pairs
from realignment.judge_stream.triage import TriagedPairs, judge_and_triage

__all__ = ["CleanPairs", "TriagedPairs", "judge_and_triage", "read_pairs"]
