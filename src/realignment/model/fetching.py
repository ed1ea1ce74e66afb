"""Base models: one string names where a model comes from; what is used is a local folder, checked."""

import errno
import shutil
from pathlib import Path

from realignment.model.sources import choose_fetcher
from realignment.model.store import (
    ModelError,
    ModelReference,
    check_digest,
    digest_file,
    digest_folder,
    keep,
    require_model,
    summarise,
)


def fetch(
    source: str,
    *,
    folder: Path,
    sha256: str | None = None,
    revision: str | None = None,
    progress: bool = True,
) -> ModelReference:
    """The model that `source` names, as a local folder; what is there already is never fetched again.

    Fetched and converted models lie under ``<folder>/<name>-<first 8 of sha256>/`` with a ``source.json``;
    folders and registered models are used where they are. Of two processes one fetches and the other waits.

    Args:
        source: One of `sources.SOURCES`; ``#sha256=…`` at its end pins the digest together with the source.
        folder: Where fetched models are kept; made if it is missing.
        sha256: Expected digest (see `ModelReference.sha256`); None accepts any.
        revision: Branch, tag or commit of a Hub model. A branch is looked up once, at the first fetch.
        progress: Whether long steps show a bar.

    Raises:
        ModelError: With what was found and what to do.
    """
    source, _, pinned = source.partition("#sha256=")
    sha256 = sha256 or pinned or None
    if in_place := _find_in_place(source):
        digest = digest_folder(in_place, progress=progress)
        check_digest(digest, sha256, source)
        return ModelReference(source, str(in_place), digest)
    file = Path(source.removeprefix("gguf:")).expanduser()
    if source.startswith("gguf:") and sha256 is None and file.is_file():
        sha256 = digest_file(file, progress=progress)  # the file may have changed since it was converted
    fill = choose_fetcher(source, revision=revision, sha256=sha256, progress=progress)
    try:
        return keep(source, folder, fill, sha256=sha256, revision=revision)
    except ModelError:
        raise
    except Exception as error:  # the disk, the Hub client and safetensors each raise errors of their own
        raise _explain(error, source, folder) from error


def _find_in_place(source: str) -> Path | None:
    if source.startswith("models:/"):
        from realignment.tracking.registry import load_registered  # needs MLflow, which only this source does

        path = Path(load_registered(source))
    elif Path(source).expanduser().is_dir():
        path = Path(source).expanduser()
    else:
        return None
    require_model(path, source)
    return path.resolve()


def _explain(error: Exception, source: str, folder: Path) -> ModelError:
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        free = shutil.disk_usage(folder).free / 2**20
        return ModelError(
            f"The disk is full: fetching {source} into {folder} needs more than the {free:.0f} MiB left. "
            "Make room or keep models on another disk."
        )
    if isinstance(error, OSError) and error.filename is not None:
        return ModelError(f"Fetching {source} failed on {error.filename}: {error.strerror}.")
    return ModelError(f"Fetching {source} failed: {summarise(error)}")
