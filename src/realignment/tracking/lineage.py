"""Manifests: what a stage read and wrote, by digest, so that runs are never mixed silently."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pydantic import BaseModel

from realignment.policy import Policy
from realignment.records import RealignmentError, digest_table
from realignment.table_files import Table, compute_digest

Manifest = dict[str, Any]

JUDGING_FACTS = ("policy", "policy_version", "oracle")
"""Fields of every manifest that say how its tables were judged; `policy` is the digest of the policy."""


class LineageError(RealignmentError):
    """A table is not the one that the stage before it wrote."""


def build_manifest(
    stage: str, *, inputs: Mapping[str, Any], outputs: Mapping[str, Table], **facts: Any
) -> Manifest:
    """Return the manifest of a stage.

    Args:
        stage: Its name.
        inputs: Tables, or digests that are known already.
        outputs: The tables it wrote.
        facts: Anything else that must be remembered: policy digest, oracle, seed.

    Returns:
        Stage, digests of inputs and outputs, and the facts.
    """
    return {
        "stage": stage,
        "inputs": {name: _digest(value) for name, value in inputs.items()},
        "outputs": {name: compute_digest(table) for name, table in outputs.items()},
        **facts,
    }


def judging_facts(policy: Policy, oracle: str) -> dict[str, Any]:
    """Return how tables were judged, as every manifest says it (`JUDGING_FACTS`).

    Args:
        policy: The policy that was judged by.
        oracle: Name of the oracle.

    Returns:
        Digest and version of the policy, and the oracle's name.
    """
    return dict(zip(JUDGING_FACTS, (policy.digest, policy.version, oracle), strict=True))


def inherited_facts(manifest: Manifest) -> dict[str, Any]:
    """Return the judging facts of a manifest, for the manifest of the stage that comes after it."""
    return {name: manifest[name] for name in JUDGING_FACTS}


def _digest(value: Any) -> str:
    return compute_digest(value) if isinstance(value, Table) else str(value)


def check_tables(manifest: Manifest, tables: Mapping[str, pd.DataFrame]) -> None:
    """Make sure that tables are the ones that the manifest was built from.

    Args:
        manifest: Of the stage that wrote the tables.
        tables: Some of its outputs, by name.

    Raises:
        LineageError: Naming every table of another run.
    """
    stage = manifest["stage"]
    outputs = manifest["outputs"]
    mismatched = [name for name, table in tables.items() if digest_table(table) != outputs.get(name)]
    if mismatched:
        raise LineageError(
            f"{', '.join(mismatched)} and `{stage}_manifest` come from different runs of the stage "
            f"'{stage}': their digests differ. Load all of its outputs in one version (`--load-versions` for "
            f"each of {', '.join(outputs)} and {stage}_manifest), or run `--pipelines {stage}` again."
        )


def check_policy(manifest: Manifest, digest: str) -> None:
    """Make sure that the policy is still the one that a stage worked under.

    Args:
        manifest: Of that stage.
        digest: Of the policy now.

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
    trained_on = training["inputs"].get("training_pairs")
    drawn = gold["outputs"]["training_pairs"]
    if trained_on != drawn:
        raise LineageError(
            f"The realigned model was trained on other pairs (training_pairs {_short(trained_on)}) than "
            f"held_out_pairs were held out of (training_pairs {_short(drawn)}): it may have seen them. For "
            "a model of this draw run `--pipelines impact,training,evaluation,promotion`; for this model, "
            "load its own draw (`--load-versions` for held_out_pairs and gold_manifest)."
        )


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "unknown"


def compute_run_key(manifest: Manifest, *settings: BaseModel | int) -> str:
    """Return the sha256 over what determines a training run: the digests of its inputs and every setting.

    Args:
        manifest: Of the training pairs and their weights.
        settings: Parameters and seeds, in a fixed order.

    Returns:
        64 hexadecimal digits.
    """
    parts = [json.dumps(manifest, sort_keys=True), *(repr(value) for value in settings)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
