"""Set aside held-out pairs and the gold batch; what is left is trained on (method.md, section 5)."""

from realignment.gold.batch import Partition, partition_pairs
from realignment.gold.drawing import compute_gold_quota

__all__ = ["Partition", "compute_gold_quota", "partition_pairs"]
