"""Catalog entries: files that appear whole or not at all, checkpoints as folders, policies as documents.

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
    """A model as a ``save_pretrained`` folder; nodes give and get its *path*: Kedro would copy a live model.

    Saving takes the given folder over: it is moved, unless it is itself a saved checkpoint, which is copied.

    Example: ``{type: realignment.datasets.CheckpointDataset, filepath: data/model, versioned: true}``
    """

    def __init__(
        self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata

    def load(self) -> str:
        """The path of the checkpoint, once every file of its manifest is found in its full size."""
        path = Path(self._get_load_path())
        check_checkpoint(path)
        return str(path)

    def save(self, data: str) -> None:
        """Move the folder `data` into place; it appears there whole or not at all."""
        source, final = Path(data), Path(self._get_save_path())
        if not (source / "config.json").is_file():
            raise CheckpointError(
                f"{source} is not a checkpoint: expected a `save_pretrained` folder with config.json."
            )
        partial = final.with_name(f"{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        if (source / MANIFEST).is_file():
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
        """Files, sizes and configuration, for kedro-viz."""
        path = Path(self._get_load_path())
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return JSONPreview(json.dumps({"manifest": _read_manifest(path), "config": config}))


def check_checkpoint(path: Path) -> str:
    """The sha256 of a saved checkpoint, after a look at its files: present, and as long as they were saved.

    Raises:
        CheckpointError: Names the first file that is missing or cut short.
    """
    manifest = _read_manifest(path)
    for name, file in manifest["files"].items():
        found = (path / name).stat().st_size if (path / name).is_file() else "no file"
        if found != file["bytes"]:
            raise CheckpointError(
                f"The checkpoint {path} is damaged: {name} should have {file['bytes']} bytes, found {found}. "
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
