"""Set aside held-out pairs and the gold batch; what is left is trained on (method.md, section 5)."""

from realignment.gold.batch import Parts, gold_quota, partition

__all__ = ["Parts", "gold_quota", "partition"]
