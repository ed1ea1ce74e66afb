"""Catalog entries for single files, which appear whole or not at all.

A crash while Kedro's own datasets write leaves half a file, which the next run takes for the newest version.
"""

from typing import Any

import kedro_datasets.json
import kedro_datasets.pandas
import kedro_datasets.pickle
import kedro_datasets.plotly
import kedro_datasets.text
import pandas as pd

from realignment.datasets.saving import AtomicSaveMixin, StreamedTextMixin, TableFileMixin


class ParquetDataset(TableFileMixin, kedro_datasets.pandas.ParquetDataset):
    """A table; one that a node returns as a `TableFile` is moved here, and loaded as any other.

    Example: ``{type: realignment.datasets.ParquetDataset, filepath: pairs.parquet, versioned: true}``
    """


class CSVDataset(StreamedTextMixin, kedro_datasets.pandas.CSVDataset):
    """A table that people open; a `TableFile` is written part by part.

    Example: ``{type: realignment.datasets.CSVDataset, filepath: history.csv}``
    """


class JSONDataset(AtomicSaveMixin, kedro_datasets.json.JSONDataset):
    """A report.

    Example: ``{type: realignment.datasets.JSONDataset, filepath: report.json}``
    """


class OptionalJSONDataset(JSONDataset):
    """A report of a separate pipeline; empty until someone has run that pipeline.

    Example: ``{type: realignment.datasets.OptionalJSONDataset, filepath: audit_report.json, versioned:
        true}``
    """

    def load(self) -> Any:
        """Return the report, or an empty one."""
        return super().load() if self.exists() else {}


class OptionalParquetDataset(ParquetDataset):
    """A table of a separate pipeline; without rows and columns until someone has run that pipeline.

    Example: ``{type: realignment.datasets.OptionalParquetDataset, filepath: verdicts.parquet, versioned:
        true}``
    """

    def load(self) -> Any:
        """Return the table, or an empty one."""
        return super().load() if self.exists() else pd.DataFrame()


class PickleDataset(AtomicSaveMixin, kedro_datasets.pickle.PickleDataset):
    """A Python object: open only files that you trust.

    Example: ``{type: realignment.datasets.PickleDataset, filepath: classifier.joblib, backend: joblib}``
    """


class FigureDataset(AtomicSaveMixin, kedro_datasets.plotly.JSONDataset):
    """A Plotly figure.

    Example: ``{type: realignment.datasets.FigureDataset, filepath: triage_flow.json}``
    """


class TextDataset(AtomicSaveMixin, kedro_datasets.text.TextDataset):
    """A page or a text.

    Example: ``{type: realignment.datasets.TextDataset, filepath: report.html}``
    """
