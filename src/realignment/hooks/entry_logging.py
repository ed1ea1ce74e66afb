"""Read from a catalog entry what of it goes to MLflow, and where its file lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, AbstractVersionedDataset
from pydantic import BaseModel, ConfigDict, ValidationError

from realignment.tracking.run import TrackingError


class EntryLogging(BaseModel):
    """What of a catalog entry is logged: its `metadata: {mlflow: …}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: str | None = None
    """Context (such as `training`) under which the table is logged as a dataset input."""
    metrics: bool = False
    """Log the numbers of a JSON report as metrics."""
    artifact: str | None = None
    """Artifact folder that receives the file as it was saved."""
    history: bool = False
    """Log the columns of a table as metrics, its column `step` as their step."""
    children: bool = False
    """Log each cell of a comparison's table as a child run (`tracking.children.log_children`)."""


def read_entry_logging(name: str, dataset: AbstractDataset[Any, Any]) -> EntryLogging | None:
    """Return what of a catalog entry is logged.

    Args:
        name: Of the entry.
        dataset: The entry.

    Returns:
        None where its metadata does not mention MLflow.

    Raises:
        TrackingError: The metadata is not valid.
    """
    metadata = getattr(dataset, "metadata", None)  # Kedro leaves this attribute to each dataset class
    settings = metadata.get("mlflow") if isinstance(metadata, Mapping) else None
    if settings is None:
        return None
    try:
        return EntryLogging.model_validate(settings)
    except ValidationError as error:
        raise TrackingError(
            f"The catalog entry '{name}' has metadata for mlflow that is not valid: {error}"
        ) from error


def entry_path(dataset: AbstractDataset[Any, Any], version: str | None) -> Path:
    """Return where a version of an entry lies; an empty path where it is no file.

    Args:
        dataset: The entry.
        version: Kedro's version; None where it has none.

    Returns:
        A file or folder.
    """
    filepath = getattr(dataset, "_filepath", "")  # Kedro has no public name for it
    if isinstance(dataset, AbstractVersionedDataset) and version is not None:
        filepath = dataset._get_versioned_path(version)
    return Path(filepath)
