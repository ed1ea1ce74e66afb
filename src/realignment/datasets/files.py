"""Catalog entries: files that appear whole or not at all, checkpoints as folders, policies as documents.

A crash while Kedro's own datasets write leaves half a file, which the next run takes for the newest version.
"""

from typing import Any

import kedro_datasets.json
import kedro_datasets.pandas
import kedro_datasets.pickle
import kedro_datasets.plotly
import kedro_datasets.text
import pandas as pd

from realignment.datasets.saving import AtomicSave, MovedTable, TableInParts


class ParquetDataset(MovedTable, kedro_datasets.pandas.ParquetDataset):
    """A table; one that a node returns as a `TableFile` is moved here, and loaded as any other.

    Example: ``{type: realignment.datasets.ParquetDataset, filepath: pairs.parquet, versioned: true}``
    """


class CSVDataset(TableInParts, kedro_datasets.pandas.CSVDataset):
    """A table that people open; a `TableFile` is written part by part.

    Example: ``{type: realignment.datasets.CSVDataset, filepath: history.csv}``
    """


class JSONDataset(AtomicSave, kedro_datasets.json.JSONDataset):
    """A report.

    Example: ``{type: realignment.datasets.JSONDataset, filepath: report.json}``
    """


class OptionalJSONDataset(JSONDataset):
    """A report that a pipeline of its own makes; empty until someone has run it.

    Example: ``{type: realignment.datasets.OptionalJSONDataset, filepath: audit_report.json, versioned:
        true}``
    """

    def load(self) -> Any:
        """The report, or an empty one."""
        return super().load() if self.exists() else {}


class OptionalParquetDataset(ParquetDataset):
    """A table that a pipeline of its own makes; without rows or columns until someone has run it.

    Example: ``{type: realignment.datasets.OptionalParquetDataset, filepath: verdicts.parquet, versioned:
        true}``
    """

    def load(self) -> Any:
        """The table, or an empty one."""
        return super().load() if self.exists() else pd.DataFrame()


class PickleDataset(AtomicSave, kedro_datasets.pickle.PickleDataset):
    """A Python object: open only files that you trust.

    Example: ``{type: realignment.datasets.PickleDataset, filepath: classifier.joblib, backend: joblib}``
    """


class FigureDataset(AtomicSave, kedro_datasets.plotly.JSONDataset):
    """A Plotly figure.

    Example: ``{type: realignment.datasets.FigureDataset, filepath: triage_flow.json}``
    """


class TextDataset(AtomicSave, kedro_datasets.text.TextDataset):
    """A page or a text.

    Example: ``{type: realignment.datasets.TextDataset, filepath: report.html}``
    """
