"""Fetch a model: one string names where it comes from, and the result is a local folder, checked."""

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
    require_model,
    store_model,
    summarise_error,
)


def fetch_model(
    source: str,
    *,
    folder: Path,
    sha256: str | None = None,
    revision: str | None = None,
    progress: bool = True,
) -> ModelReference:
    """Return the model that `source` names as a local folder; what is there already is not fetched again.

    Fetched and converted models lie under ``<folder>/<name>-<first 8 of sha256>/`` with a ``source.json``;
    folders and registered models are used where they are. Of two processes one fetches and the other waits.

    Args:
        source: One of `sources.SOURCES`; ``#sha256=…`` at its end pins the digest together with the source.
        folder: Where fetched models are stored; made if it is missing.
        sha256: Expected digest (see `ModelReference.sha256`); None accepts any.
        revision: Branch, tag or commit of a Hub model. A branch is resolved once, at the first fetch.
        progress: Whether long steps show a bar.

    Returns:
        Path, digest and origin of the model.

    Raises:
        ModelError: The message says what was found and what to do.
    """
    source, _, pinned_sha256 = source.partition("#sha256=")
    sha256 = sha256 or pinned_sha256 or None
    local_folder = _find_local_folder(source)
    if local_folder is not None:
        digest = digest_folder(local_folder, progress=progress)
        check_digest(digest, sha256, source)
        return ModelReference(source, str(local_folder), digest)
    file = Path(source.removeprefix("gguf:")).expanduser()
    if source.startswith("gguf:") and sha256 is None and file.is_file():
        # The file may have changed since it was converted: look for the conversion of this content.
        sha256 = digest_file(file, progress=progress)
    fetcher = choose_fetcher(source, revision=revision, sha256=sha256, progress=progress)
    try:
        return store_model(source, folder, fetcher, sha256=sha256, revision=revision)
    except ModelError:
        raise
    except Exception as error:  # the disk, the Hub client and safetensors each raise errors of their own
        raise _explain(error, source, folder) from error


def _find_local_folder(source: str) -> Path | None:
    """Return the folder of a source that is used where it is; None for one that has to be fetched."""
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
    return ModelError(f"Fetching {source} failed: {summarise_error(error)}")
