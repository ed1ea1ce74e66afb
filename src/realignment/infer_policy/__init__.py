"""Infer an undocumented policy: the principles that explain the choices in preference pairs."""

from realignment.infer_policy.document import read_document, write_document
from realignment.infer_policy.inference import infer_principles
from realignment.infer_policy.table import PRINCIPLE_COLUMNS, Explanation

__all__ = ["PRINCIPLE_COLUMNS", "Explanation", "infer_principles", "read_document", "write_document"]
