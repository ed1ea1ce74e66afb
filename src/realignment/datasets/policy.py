"""The catalog entry for a policy document."""

from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from realignment.policy import Policy, read_policy
from realignment.tracking.versions import find_newest_version


class PolicyDataset(AbstractDataset[None, Policy]):
    """A policy document, validated when it is loaded; people write it, no node does.

    Where the path is a folder, it is a versioned entry that some pipeline wrote (`inferred_policy`), and its
    newest version is read.

    Example: ``{type: realignment.datasets.PolicyDataset, filepath: conf/base/policies/advice-2.yml}``
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = PurePosixPath(find_newest_version(Path(filepath)))
        self.metadata = metadata

    def load(self) -> Policy:
        """Return the policy; a PolicyError names the rule that is wrong."""
        return read_policy(Path(self._filepath))

    def save(self, data: None) -> None:
        """Refuse to save: a policy is an input."""
        raise DatasetError(f"{self._filepath} is a policy document; no node may write it.")

    def _exists(self) -> bool:
        return Path(self._filepath).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}

    def preview(self) -> JSONPreview:
        """Return the policy as JSON, for kedro-viz."""
        return JSONPreview(read_policy(Path(self._filepath)).model_dump_json(exclude_none=True))
