"""Manifests: what a stage read and wrote, by digest, so that runs are never mixed silently."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pydantic import BaseModel

from realignment.records import RealignmentError, digest_table
from realignment.table_files import Table, digest

Manifest = dict[str, Any]


class LineageError(RealignmentError):
    """A table is not the one that the stage before it wrote."""


def seal(stage: str, *, inputs: Mapping[str, Any], outputs: Mapping[str, Table], **facts: Any) -> Manifest:
    """The manifest of a stage.

    Args:
        stage: Its name.
        inputs: Tables, or digests that are known already.
        outputs: The tables it wrote.
        facts: Anything else that must be remembered: policy digest, oracle, seed.
    """
    return {
        "stage": stage,
        "inputs": {name: _digest(value) for name, value in inputs.items()},
        "outputs": {name: digest(table) for name, table in outputs.items()},
        **facts,
    }


def _digest(value: Any) -> str:
    return digest(value) if isinstance(value, Table) else str(value)


def check(manifest: Manifest, tables: Mapping[str, pd.DataFrame]) -> None:
    """Make sure that tables are the ones the manifest was sealed over.

    Raises:
        LineageError: Naming every table of another run.
    """
    stage, outputs = manifest["stage"], manifest["outputs"]
    strangers = [name for name, table in tables.items() if digest_table(table) != outputs.get(name)]
    if strangers:
        raise LineageError(
            f"{', '.join(strangers)} and `{stage}_manifest` come from different runs of the stage '{stage}': "
            "their digests differ. Load all of its outputs in one version (`--load-versions` for each of "
            f"{', '.join(outputs)} and {stage}_manifest), or run `--pipelines {stage}` again."
        )


def check_policy(manifest: Manifest, digest: str) -> None:
    """Make sure that the policy is still the one that a stage worked under.

    Raises:
        LineageError: It has changed since.
    """
    if manifest["policy"] != digest:
        raise LineageError(
            f"The policy has changed (digest {_short(digest)}) since the stage '{manifest['stage']}' worked "
            f"under version {manifest['policy_version']} (digest {_short(manifest['policy'])}). Run "
            "`--pipelines judging,triage` again, or name the policy of that run (`--params policy=…`)."
        )


def check_model(training: Manifest, gold: Manifest) -> None:
    """Make sure that the model was trained on the rest of this draw: it has not seen what is held out.

    Args:
        training: Manifest of the stage that trained the model.
        gold: Manifest of the draw that the held-out pairs are from.

    Raises:
        LineageError: The model was trained on another draw, which may hold pairs that are held out here.
    """
    trained, drawn = training["inputs"].get("training_pairs"), gold["outputs"]["training_pairs"]
    if trained != drawn:
        raise LineageError(
            f"The realigned model was trained on other pairs (training_pairs {_short(trained)}) than "
            f"held_out_pairs were held out of (training_pairs {_short(drawn)}): it may have seen them. For "
            "a model of this draw run `--pipelines impact,training,evaluation,promotion`; for this model, "
            "load its own draw (`--load-versions` for held_out_pairs and gold_manifest)."
        )


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "unknown"


def run_key(manifest: Manifest, *settings: BaseModel | int) -> str:
    """sha256 over what determines a training run: the digests of its inputs and every setting."""
    parts = [json.dumps(manifest, sort_keys=True), *(repr(value) for value in settings)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
