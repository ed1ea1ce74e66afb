"""Store fetched models in one folder: each complete or not there at all, each with its sha256."""

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
    """A model cannot be fetched, is not the pinned one, or is no model."""


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
    """Digest and revision of a model that a fetcher has put into a folder (see `ModelReference`)."""

    sha256: str
    revision: str | None = None


Fetcher = Callable[[Path], Origin]
"""Puts a model into an empty folder."""

Check = Callable[[str], None]
"""Raises a ModelError if the sha256 is not the pinned one."""


def store_model(
    source: str, folder: Path, fetcher: Fetcher, *, sha256: str | None, revision: str | None
) -> ModelReference:
    """Return the stored model of a source; fetch and store it first where it is not there yet.

    A model lies under ``<folder>/<name>-<first 8 of sha256>/``, and is found by its source or its sha256. One
    process at a time fetches; others wait for it and use what it stored.

    Args:
        source: The string that the user gave.
        folder: Where the models are stored; made if it is missing.
        fetcher: Called with an empty folder where the model is not stored yet.
        sha256: Expected digest: any stored model with it is returned; None: the source decides.
        revision: Requested revision of a Hub model.

    Returns:
        The stored model.
    """
    # Look before locking: the folder may be read-only.
    stored = _find_stored(source, folder, sha256, revision)
    if stored is not None:
        return stored
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        _remove_unusable(folder)
        # Another process may have stored it while this one waited for the lock.
        stored = _find_stored(source, folder, sha256, revision)
        return stored or _fetch(source, folder, fetcher, revision)


def _fetch(source: str, folder: Path, fetcher: Fetcher, revision: str | None) -> ModelReference:
    last_part = Path(source.split(":", 1)[-1]).name.removesuffix(".gguf").lower()
    name = re.sub(r"[^a-z0-9._]+", "-", last_part).strip("-.")
    with _partial_folder(folder, name) as partial:
        origin = fetcher(partial)
        require_model(partial, source)
        stored = _find_stored(source, folder, origin.sha256, revision)
        if stored is not None:
            return stored  # the same content came from another source before
        target = (folder / f"{name}-{origin.sha256[:8]}").resolve()
        reference = ModelReference(source, str(target), origin.sha256, origin.revision)
        record = {key: value for key, value in asdict(reference).items() if key != "path"} | {
            "requested_revision": revision,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "bytes": {path.relative_to(partial).as_posix(): _size(path) for path in _list_files(partial)},
        }
        (partial / "source.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        # Renaming is atomic: no other process ever sees half of the folder.
        os.rename(partial, target)
    return reference


def _find_stored(
    source: str, folder: Path, sha256: str | None, revision: str | None
) -> ModelReference | None:
    for record_path in sorted(folder.glob("*/source.json")):
        record = json.loads(record_path.read_text(encoding="utf-8"))
        if sha256 is None:
            matches = record["source"] == source and record["requested_revision"] == revision
        else:
            matches = record["sha256"] == sha256.lower()
        if matches and _is_complete(record_path):
            path = str(record_path.parent.resolve())
            return ModelReference(source, path, record["sha256"], record["revision"])
    return None


def _is_complete(record_path: Path) -> bool:
    sizes = json.loads(record_path.read_text(encoding="utf-8"))["bytes"]
    return all(_size(record_path.parent / name) == size for name, size in sizes.items())


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
    # Called under the lock: the process that left a partial folder was killed, nothing writes to it any more.
    for partial in folder.glob("*.partial"):
        _LOG.warning("Removing %s, left by a fetch that did not finish.", partial)
        shutil.rmtree(partial)
    for record_path in folder.glob("*/source.json"):
        if not _is_complete(record_path):
            _LOG.warning("Removing %s: files are missing or cut off.", record_path.parent)
            shutil.rmtree(record_path.parent)


def require_model(folder: Path, source: str) -> None:
    """Raise an error unless a folder holds a configuration and weights.

    Args:
        folder: Where the model should be.
        source: Named in the error.

    Raises:
        ModelError: Naming the files that are there.
    """
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    has_weights = any(name.endswith((".safetensors", ".bin")) for name in names)
    if "config.json" in names and has_weights:
        return
    if "adapter_config.json" in names:
        raise ModelError(
            f"{source} is a LoRA adapter, not a model: merge it into its base "
            "(`merge_and_unload` of peft) and save that."
        )
    raise ModelError(
        f"{source} is no model that transformers can load: expected config.json and *.safetensors "
        f"in {folder}, found {', '.join(names[:10]) or 'no files'}."
    )


def check_digest(sha256: str, expected: str | None, source: str) -> None:
    """Raise an error unless a sha256 is the pinned one.

    Args:
        sha256: Of the model.
        expected: The pinned one, in either case of letters; None accepts any.
        source: Named in the error.

    Raises:
        ModelError: They differ.
    """
    if expected is not None and sha256 != expected.lower():
        raise ModelError(
            f"{source} is not the pinned model: expected sha256 {expected}, found {sha256}. "
            "If you meant to change the model, pin the new digest; if not, do not use this file."
        )


def digest_file(path: Path, *, progress: bool = False) -> str:
    """Return the sha256 of a file's content."""
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
    """Return the sha256 over names and contents of a folder's files.

    Hidden files and ``source.json`` are left out.
    """
    digest = hashlib.sha256()
    for file in _list_files(folder):
        sha256 = digest_file(file, progress=progress)
        digest.update(f"{file.relative_to(folder).as_posix()} {sha256}\n".encode())
    return digest.hexdigest()


def _list_files(folder: Path) -> list[Path]:
    files = []
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden and file != folder / "source.json":
            files.append(file)
    return sorted(files)


def summarise_error(error: Exception) -> str:
    """Return the type and the beginning of an error that a library raised."""
    return f"{type(error).__name__}: {str(error).strip()[:600]}"
