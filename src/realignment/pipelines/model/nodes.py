"""Nodes of the stage `model`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from realignment.model.fetching import fetch_model
from realignment.parameters.base import ModelParameters


def fetch_reference_model(parameters: ModelParameters) -> dict[str, Any]:
    """Fetch M_ref into its folder; a model that is there already is not fetched again."""
    reference = fetch_model(
        parameters.source,
        folder=Path(parameters.folder),
        sha256=parameters.sha256,
        revision=parameters.revision,
    )
    return asdict(reference)
