"""Catalog entries: files that appear whole or not at all, checkpoints as folders, policies as documents."""

from realignment.datasets.checkpoint import CheckpointDataset, CheckpointError, check_checkpoint
from realignment.datasets.files import (
    CSVDataset,
    FigureDataset,
    JSONDataset,
    OptionalJSONDataset,
    OptionalParquetDataset,
    ParquetDataset,
    PickleDataset,
    TextDataset,
)
from realignment.datasets.policy import PolicyDataset

__all__ = [
    "CSVDataset",
    "CheckpointDataset",
    "CheckpointError",
    "FigureDataset",
    "JSONDataset",
    "OptionalJSONDataset",
    "OptionalParquetDataset",
    "ParquetDataset",
    "PickleDataset",
    "PolicyDataset",
    "TextDataset",
    "check_checkpoint",
]
