"""Catalog entries for the tables that people give to a run: read-only."""

from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pandas as pd
import yaml
from kedro.io import AbstractDataset, DatasetError

from realignment.intake.readers import read_table
from realignment.intake.shards import Shards, scan_shards
from realignment.records import DataError
from realignment.review.verdicts import read_verdicts

_Loaded = TypeVar("_Loaded")


class _InputDataset(AbstractDataset[NoReturn, _Loaded]):
    """A file or folder that people give to a run. Read-only."""

    _filepath: Any  # None where there may be no table

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = filepath
        self.metadata = metadata

    def save(self, data: NoReturn) -> None:
        """Refuse to save: what people give is never overwritten."""
        raise DatasetError(f"{self._filepath} is an input; it is read-only.")

    def _exists(self) -> bool:
        return Path(self._filepath).exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}


class TableDataset(_InputDataset[pd.DataFrame]):
    """A table of raw rows, read-only; see `read_table`.

    Example: ``{type: realignment.datasets.tables.TableDataset, filepath: data/01_raw/pairs.jsonl}``, or as
    `filepath` ``hub://org/name?split=train&config=default``, or ``none`` (or null) where there is no such
    table.
    """

    def __init__(self, *, filepath: str | None, metadata: dict[str, Any] | None = None) -> None:
        # Kedro makes every relative `filepath` absolute before it comes here, the word `none` too.
        self._filepath = None if filepath is None or Path(filepath).name == "none" else filepath
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Return the rows, or an empty table where `filepath` is none."""
        if self._filepath is None:
            return pd.DataFrame(index=pd.RangeIndex(1, 1, name="row"))
        return read_table(self._filepath)

    def _exists(self) -> bool:
        if self._filepath is None:
            return False
        # Whether a data set of the Hub exists is known only when it is downloaded.
        return self._filepath.startswith("hub://") or Path(self._filepath).is_file()


class DocumentDataset(_InputDataset[Any]):
    """A YAML document that people write; the code that uses it validates it. Read-only.

    Example: ``{type: realignment.datasets.tables.DocumentDataset, filepath: conf/base/attacks.yml}``
    """

    def load(self) -> Any:
        """Return the document as `yaml.safe_load` reads it."""
        try:
            return yaml.safe_load(Path(self._filepath).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise DataError(f"{self._filepath} is not readable as UTF-8 YAML: {error}") from error


class ShardsDataset(_InputDataset[Shards]):
    """A table of raw rows in files that are larger than memory; see `intake.shards.scan_shards`. Read-only.

    Example: ``{type: realignment.datasets.tables.ShardsDataset, filepath: my/pairs}``, a file, a
    folder or a pattern.
    """

    def load(self) -> Shards:
        """Return the files, each scanned once: rows are read later, part by part."""
        return scan_shards(self._filepath)


class VerdictsDataset(_InputDataset[pd.DataFrame]):
    """Verdicts that people return: a file, or a folder of files; see `review.verdicts.read_verdicts`.

    Example: ``{type: realignment.datasets.tables.VerdictsDataset, filepath: my/verdicts}``, or ``none``;
    `parameter` is the name under which people give the file.
    """

    def __init__(
        self, *, filepath: str, parameter: str = "verdicts", metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._parameter = parameter

    def load(self) -> pd.DataFrame:
        """Return the rows as people returned them."""
        if Path(self._filepath).name == "none":
            raise DataError(
                f"No file of {self._parameter} was given: `--params {self._parameter}=FILE`, or a folder "
                "with one file per annotator."
            )
        return read_verdicts(self._filepath)
