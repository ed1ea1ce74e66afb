"""The folder in which fetched models are kept: each complete or not there at all, each with its sha256."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from tqdm.auto import tqdm

from realignment.records import RealignmentError

_LOG = logging.getLogger(__name__)


class ModelError(RealignmentError):
    """A model that cannot be fetched, is not the pinned one, or is no model."""


@dataclass(frozen=True, slots=True)
class ModelReference:
    """Where a model came from and where it lies now; ``dataclasses.asdict`` gives its JSON.

    Attributes:
        source: The string that the user gave.
        path: Absolute path of a folder that transformers loads.
        sha256: Of the GGUF file where there is one, else of the folder (``digest_folder``).
        revision: The commit of a Hub model; None for every other source.
    """

    source: str
    path: str
    sha256: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What a fetcher found out about the model that it put into a folder (see `ModelReference`)."""

    sha256: str
    revision: str | None = None


Fill = Callable[[Path], Origin]
"""Puts a model into an empty folder."""


def keep(
    source: str, folder: Path, fill: Fill, *, sha256: str | None, revision: str | None
) -> ModelReference:
    """The model of a source, from where it is kept; filled in first where it is not there yet.

    A model lies under ``<folder>/<name>-<first 8 of sha256>/``, and is found by its source or its sha256. One
    process at a time fills; others wait for it and use what it left.
    """
    if kept := _find_kept(source, folder, sha256, revision):  # before the lock: the folder may be read-only
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        _remove_unusable(folder)
        return _find_kept(source, folder, sha256, revision) or _fill(source, folder, fill, revision)


def _fill(source: str, folder: Path, fill: Fill, revision: str | None) -> ModelReference:
    last_part = Path(source.split(":", 1)[-1]).name.removesuffix(".gguf").lower()
    name = re.sub(r"[^a-z0-9._]+", "-", last_part).strip("-.")
    with _partial_folder(folder, name) as partial:
        origin = fill(partial)
        require_model(partial, source)
        if kept := _find_kept(source, folder, origin.sha256, revision):
            return kept  # the same content came from another source before
        target = (folder / f"{name}-{origin.sha256[:8]}").resolve()
        reference = ModelReference(source, str(target), origin.sha256, origin.revision)
        record = {key: value for key, value in asdict(reference).items() if key != "path"} | {
            "requested_revision": revision,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "bytes": {path.relative_to(partial).as_posix(): _size(path) for path in _list_files(partial)},
        }
        (partial / "source.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.rename(partial, target)
    return reference


def _find_kept(source: str, folder: Path, sha256: str | None, revision: str | None) -> ModelReference | None:
    for record in sorted(folder.glob("*/source.json")):
        stored = json.loads(record.read_text(encoding="utf-8"))
        if sha256 is None:
            wanted = (stored["source"], stored["requested_revision"]) == (source, revision)
        else:
            wanted = stored["sha256"] == sha256.lower()
        if wanted and _is_whole(record):
            return ModelReference(source, str(record.parent.resolve()), stored["sha256"], stored["revision"])
    return None


def _is_whole(record: Path) -> bool:
    sizes = json.loads(record.read_text(encoding="utf-8"))["bytes"]
    return all(_size(record.parent / name) == size for name, size in sizes.items())


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


@contextlib.contextmanager
def _partial_folder(folder: Path, name: str) -> Iterator[Path]:
    partial = folder / f"{name}.partial"
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_unusable(folder: Path) -> None:
    # Called under the lock: whoever left half-finished folders was killed, nobody writes to them any more.
    for partial in folder.glob("*.partial"):
        _LOG.warning("Removing %s, left by a fetch that did not finish.", partial)
        shutil.rmtree(partial)
    for record in folder.glob("*/source.json"):
        if not _is_whole(record):
            _LOG.warning("Removing %s: files are missing or cut off.", record.parent)
            shutil.rmtree(record.parent)


def require_model(folder: Path, source: str) -> None:
    """Raise unless a folder holds a configuration and weights."""
    found = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    weights = [name for name in found if name.endswith((".safetensors", ".bin"))]
    if "config.json" in found and weights:
        return
    if "adapter_config.json" in found:
        raise ModelError(
            f"{source} is a LoRA adapter, not a model: merge it into its base "
            "(`merge_and_unload` of peft) and save that."
        )
    raise ModelError(
        f"{source} is no model that transformers can load: expected config.json and *.safetensors "
        f"in {folder}, found {', '.join(found[:10]) or 'no files'}."
    )


def check_digest(found: str, expected: str | None, source: str) -> None:
    """Raise unless a sha256 is the pinned one."""
    if expected is not None and found != expected.lower():
        raise ModelError(
            f"{source} is not the pinned model: expected sha256 {expected}, found {found}. "
            "If you meant to change the model, pin the new digest; if not, do not use this file."
        )


def digest_file(path: Path, *, progress: bool = False) -> str:
    """sha256 of a file's content."""
    digest = hashlib.sha256()
    total = path.stat().st_size
    bar = tqdm(
        total=total, unit="B", unit_scale=True, desc=f"sha256 {path.name}", disable=not progress, leave=False
    )
    with path.open("rb") as file, bar:
        while block := file.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def digest_folder(folder: Path, *, progress: bool = False) -> str:
    """sha256 over names and contents of the files in a folder, hidden ones and ``source.json`` left out."""
    digest = hashlib.sha256()
    for file in _list_files(folder):
        digest.update(
            f"{file.relative_to(folder).as_posix()} {digest_file(file, progress=progress)}\n".encode()
        )
    return digest.hexdigest()


def _list_files(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if file.is_file() and file != folder / "source.json")
    return sorted(
        file for file in files if not any(p.startswith(".") for p in file.relative_to(folder).parts)
    )


def summarise(error: Exception) -> str:
    """The kind and the beginning of an error that a library raised."""
    return f"{type(error).__name__}: {str(error).strip()[:600]}"
