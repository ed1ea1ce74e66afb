"""The catalog entry for a model checkpoint: a folder that is complete, or refused.

A crash while Kedro's own datasets write leaves half a file, which the next run takes for the newest version.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractVersionedDataset, Version
from kedro_datasets._typing import JSONPreview

from realignment.records import RealignmentError

MANIFEST = "checkpoint.json"
"""In every saved checkpoint: `sha256` of the whole, and size and sha256 of each file."""


class CheckpointError(RealignmentError):
    """A folder is not the complete checkpoint that it should be."""


class CheckpointDataset(AbstractVersionedDataset[str, str]):
    """A model as a ``save_pretrained`` folder; nodes save and load its *path*: Kedro would copy a live model.

    Saving moves the folder into the catalog, unless it is itself a saved checkpoint, which is copied.

    Example: ``{type: realignment.datasets.CheckpointDataset, filepath: data/model, versioned: true}``
    """

    def __init__(
        self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata

    def load(self) -> str:
        """Return the path of the checkpoint, after a check that every file of its manifest is complete."""
        path = Path(self._get_load_path())
        check_checkpoint(path)
        return str(path)

    def save(self, data: str) -> None:
        """Move a folder into place; it appears there whole or not at all.

        Args:
            data: Path of the folder.

        Raises:
            CheckpointError: It has no configuration.
        """
        source = Path(data)
        final = Path(self._get_save_path())
        if not (source / "config.json").is_file():
            raise CheckpointError(
                f"{source} is not a checkpoint: expected a `save_pretrained` folder with config.json."
            )
        partial = final.with_name(f"{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        if (source / MANIFEST).is_file():
            # A saved checkpoint belongs to another catalog entry, which keeps it.
            shutil.copytree(source, partial)
        else:
            shutil.move(source, partial)
            _write_manifest(partial)
        if self._version is None:
            shutil.rmtree(final, ignore_errors=True)
        os.rename(partial, final)

    def _exists(self) -> bool:
        return (Path(self._get_load_path()) / MANIFEST).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}

    def preview(self) -> JSONPreview:
        """Return files, sizes and configuration as JSON, for kedro-viz."""
        path = Path(self._get_load_path())
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return JSONPreview(json.dumps({"manifest": _read_manifest(path), "config": config}))


def check_checkpoint(path: Path) -> str:
    """Check that the files of a saved checkpoint are there in their full size, and return its sha256.

    Args:
        path: Folder of the checkpoint.

    Returns:
        The sha256 of the whole, as it was computed when the checkpoint was saved.

    Raises:
        CheckpointError: Names the first file that is missing or cut off.
    """
    manifest = _read_manifest(path)
    for name, file in manifest["files"].items():
        size = (path / name).stat().st_size if (path / name).is_file() else "no file"
        if size != file["bytes"]:
            raise CheckpointError(
                f"The checkpoint {path} is damaged: {name} should have {file['bytes']} bytes, found {size}. "
                "Load another version (`kedro run --load-versions`), or run the training again."
            )
    return str(manifest["sha256"])


def _write_manifest(path: Path) -> None:
    files = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != MANIFEST:
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            files[file.relative_to(path).as_posix()] = {"bytes": file.stat().st_size, "sha256": digest}
    whole = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    (path / MANIFEST).write_text(json.dumps({"sha256": whole, "files": files}, indent=1), encoding="utf-8")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} has no readable {MANIFEST}: it is not a checkpoint that this project saved."
        ) from error
    if "config.json" not in manifest["files"]:
        raise CheckpointError(f"The checkpoint {path} has no config.json: transformers cannot load it.")
    return manifest
