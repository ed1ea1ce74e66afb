"""Find the newest version of a catalog entry on disk."""

from pathlib import Path


def find_newest_version(path: Path) -> Path:
    """Return the newest version of a versioned catalog entry; any other path is returned as it is.

    Kedro stores a versioned entry ``data/name`` as ``data/name/<version>/name``, and its versions are times,
    so that the newest is the last in alphabetical order.

    Args:
        path: A file, or the folder of an entry's versions.

    Returns:
        The newest version where `path` is such a folder, else `path`.
    """
    return max(path.glob(f"*/{path.name}"), default=path)
