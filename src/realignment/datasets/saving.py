"""How the datasets save: whole or not at all, and tables that are larger than memory without loading them."""

import shutil
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from realignment.table_files import Table, TableFile


class AtomicSaveMixin:
    """Mixed into a dataset of `kedro_datasets`: it writes ``<file>.partial``, renamed once it is complete."""

    _partial: PurePosixPath | None = None
    _fs: Any
    _protocol: str
    _save_args: dict[str, Any]

    def save(self, data: Any) -> None:
        """Write, then rename within the folder, which is atomic on a local disk."""
        final = self._get_save_path()
        # While `_partial` is set, `_get_save_path` returns it: so the dataset's own `save` writes there.
        self._partial = final.with_name(f"{final.name}.partial")
        try:
            self._write(data)
            self._fs.mv(str(self._partial), str(final))
        except BaseException:
            with suppress(OSError):  # on a full disk every byte counts, and nobody reads half a file
                self._fs.rm(str(self._partial))
            raise
        finally:
            self._partial = None

    def _write(self, data: Any) -> None:
        super().save.__wrapped__(self, data)  # type: ignore[misc]  # Kedro's wrapper would log and check twice

    def _get_save_path(self) -> PurePosixPath:
        return self._partial or super()._get_save_path()  # type: ignore[misc]


class TableFileMixin(AtomicSaveMixin):
    """`AtomicSaveMixin` for Parquet tables: the file of a `TableFile` becomes the file of the dataset."""

    def _write(self, data: Table) -> None:
        if not isinstance(data, TableFile):
            super()._write(data)
        elif self._protocol == "file":
            target = Path(self._get_save_path())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(data.path, target)
        else:
            self._fs.put_file(str(data.path), str(self._get_save_path()))


class StreamedTextMixin(AtomicSaveMixin):
    """`AtomicSaveMixin` for tables that are text: a `TableFile` is written as text, part by part."""

    def _write(self, data: Table) -> None:
        if not isinstance(data, TableFile):
            super()._write(data)
            return
        target = self._get_save_path()
        self._fs.makedirs(str(target.parent), exist_ok=True)
        with self._fs.open(str(target), "w", encoding="utf-8", newline="") as file:
            # A table without rows writes the header once; then come the rows of each part.
            pd.DataFrame(columns=data.columns).to_csv(file, **self._save_args)
            for part in data.parts():
                part.to_csv(file, **self._save_args | {"header": False})
