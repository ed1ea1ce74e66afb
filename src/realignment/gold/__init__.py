"""Set aside held-out pairs and the gold batch; what is left is trained on (method.md, section 5)."""

from realignment.gold.batch import Partition, compute_gold_quota, partition_pairs

__all__ = ["Partition", "compute_gold_quota", "partition_pairs"]
