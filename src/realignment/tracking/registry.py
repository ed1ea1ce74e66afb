"""The MLflow model registry: versions without copies of weights, and aliases that say which one counts."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import unquote, urlparse

import pandas as pd

from realignment.records import RealignmentError
from realignment.tracking.mlmodel import write_mlmodel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

CANDIDATE = "candidate"
CHAMPION = "champion"
PREVIOUS = "previous"

RESPONSES = "responses/responses.parquet"
"""Artifact of the run that registered a version: its judged answers, which a successor is compared with."""


class RegistryError(RealignmentError):
    """The model registry cannot give or take a model."""


class StoredChampion(TypedDict):
    """The version that has the alias, and its judged answers; None where its run has none."""

    version: str
    responses: pd.DataFrame | None


class RegisteredModel(TypedDict):
    """A registered version; where MLflow is switched off, `version` and `uri` are None."""

    name: str
    version: str | None
    uri: str | None
    aliases: list[str]
    source: str
    tags: dict[str, str]


def register_checkpoint(
    path: Path,
    *,
    name: str,
    tags: Mapping[str, str],
    passed: bool,
    responses: pd.DataFrame | None = None,
    run_id: str | None = None,
    tracking_uri: str | None = None,
) -> RegisteredModel:
    """Register a checkpoint folder as the newest version: `candidate`, and `champion` if it passed.

    The folder stays where it is; only a tracking *server*, which cannot see it, gets a copy as artifact.
    It gains the file `MLmodel`, so that `mlflow.pyfunc.load_model` and `mlflow.transformers.load_model` work.

    Args:
        path: Folder as `CheckpointDataset` stores it, ``<name>/<kedro version>/<name>``.
        name: Name of the registered model.
        tags: Added to the version, next to `gate` (passed, failed) and `kedro_version`.
        passed: Whether the gate lets it become champion; the former champion then becomes `previous`.
        responses: Its judged answers, stored with the run: what a successor is compared with.
        run_id: MLflow run it comes from; default: the run of this process (MLFLOW_RUN_ID).
        tracking_uri: Default: that of this process (MLFLOW_TRACKING_URI); without any, nothing is registered.

    Returns:
        Name, version, URI, aliases, source and tags, as they are in the registry.

    Raises:
        RegistryError: MLflow did not register it; the checkpoint itself is safe.
    """
    run_id = run_id or os.environ.get("MLFLOW_RUN_ID")
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    tags = {**tags, "gate": "passed" if passed else "failed", "kedro_version": path.parent.name}
    if uri is None:
        return {"name": name, "version": None, "uri": None, "aliases": [], "source": str(path), "tags": tags}
    try:
        client = _client(uri)
        if responses is not None and run_id is not None:
            _store_responses(client, responses, run_id)
        return _register(client, path, name, tags, passed, run_id, remote=uri.startswith("http"))
    except RealignmentError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy and HTTP share no base class
        raise RegistryError(
            f"MLflow at {uri} did not register {path} as '{name}': {error}\nThe checkpoint itself is safe. "
            "Bring MLflow back, then run `kedro run --pipelines promotion`."
        ) from error


def load_registered(uri: str) -> Path:
    """Return the local checkpoint folder of a registered model.

    Args:
        uri: ``models:/name@alias`` or ``models:/name/3``.

    Returns:
        The folder that was registered, or a download of it where it is an artifact of a tracking server.

    Raises:
        RegistryError: No such model, or its folder is gone from this machine.
    """
    import mlflow

    client = mlflow.MlflowClient()
    try:
        version = _get_version(client, uri)
    except mlflow.MlflowException as error:
        raise RegistryError(
            f"No model {uri} in MLflow at {mlflow.get_tracking_uri()} ({error}). Set MLFLOW_TRACKING_URI to "
            "the store that has it; `mlflow ui` lists the registered models."
        ) from error
    source = urlparse(str(version.source))
    if source.scheme not in ("file", ""):
        return Path(mlflow.artifacts.download_artifacts(uri))
    path = Path(unquote(source.path))
    if not path.is_dir():
        raise RegistryError(
            f"{uri} is version {version.version}, kept in {path}, which is not on this machine. "
            "Copy the folder there, or register another version."
        )
    return path


def read_champion(name: str, *, policy_digest: str, tracking_uri: str | None = None) -> StoredChampion | None:
    """Return the champion that a candidate has to match, with its judged answers.

    Args:
        name: Name of the registered model.
        policy_digest: Of the policy that the candidate is measured under.
        tracking_uri: Default: that of this process (MLFLOW_TRACKING_URI).

    Returns:
        None where there is no champion, or where it was judged under another policy: its verdicts say
        nothing here.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        return None
    client = _client(uri)
    champion = _get_version_by_alias(client, name, CHAMPION)
    if champion is None or champion.tags.get("policy_digest") != policy_digest:
        return None
    return {"version": str(champion.version), "responses": _load_responses(client, champion.run_id)}


def _store_responses(client: "MlflowClient", responses: pd.DataFrame, run_id: str) -> None:
    """Log the judged answers, unless the stage `evaluation` of the same run has done so."""
    folder, _, file = RESPONSES.partition("/")
    if any(artifact.path == RESPONSES for artifact in client.list_artifacts(run_id, folder)):
        return
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / file
        responses.to_parquet(path)
        client.log_artifact(run_id, str(path), folder)


def _load_responses(client: "MlflowClient", run_id: str | None) -> pd.DataFrame | None:
    folder = RESPONSES.partition("/")[0]
    if not run_id or all(artifact.path != RESPONSES for artifact in client.list_artifacts(run_id, folder)):
        return None
    with TemporaryDirectory() as temporary:
        return pd.read_parquet(client.download_artifacts(run_id, RESPONSES, temporary))


def _client(uri: str) -> "MlflowClient":
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _register(
    client: "MlflowClient",
    path: Path,
    name: str,
    tags: dict[str, str],
    passed: bool,
    run_id: str | None,
    remote: bool,
) -> RegisteredModel:
    write_mlmodel(path)
    source = path.resolve().as_uri()
    model_id = None
    if remote:
        source = _upload(client, path, run_id)
    elif run_id is not None:
        model_id = _log_model(client, name, tags, run_id)
    _ensure_model(client, name)
    created = client.create_model_version(name, source=source, run_id=run_id, tags=tags, model_id=model_id)
    version = str(created.version)
    aliases = _set_aliases(client, name, version, passed)
    uri = f"models:/{name}/{version}"
    log.info("Registered %s as %s (%s)", path, uri, ", ".join(aliases))
    return {"name": name, "version": version, "uri": uri, "aliases": aliases, "source": source, "tags": tags}


def _log_model(client: "MlflowClient", name: str, tags: dict[str, str], run_id: str) -> str:
    """A logged model without weights: it ties the run and the version together in MLflow's interface."""
    run = client.get_run(run_id)
    model = client.create_logged_model(
        run.info.experiment_id,
        name,
        run_id,
        {**tags, "mlflow.model.isExternal": "true"},
        model_type="causal-lm",
    )
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def _upload(client: "MlflowClient", path: Path, run_id: str | None) -> str:
    if run_id is None:
        raise RegistryError(
            "A tracking server takes a model as artifact of a run: give the run's id, or set MLFLOW_RUN_ID."
        )
    client.log_artifacts(run_id, str(path), "model")
    return f"{client.get_run(run_id).info.artifact_uri}/model"


def _ensure_model(client: "MlflowClient", name: str) -> None:
    import mlflow

    try:
        client.create_registered_model(name)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _set_aliases(client: "MlflowClient", name: str, version: str, passed: bool) -> list[str]:
    client.set_registered_model_alias(name, CANDIDATE, version)
    if not passed:
        return [CANDIDATE]
    former = _get_version_by_alias(client, name, CHAMPION)
    if former is not None:
        client.set_registered_model_alias(name, PREVIOUS, str(former.version))
    client.set_registered_model_alias(name, CHAMPION, version)
    return [CANDIDATE, CHAMPION]


def _get_version_by_alias(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    import mlflow

    try:
        return client.get_model_version_by_alias(name, alias)
    except mlflow.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _get_version(client: "MlflowClient", uri: str) -> "ModelVersion":
    name = uri.removeprefix("models:/")  # NAME@ALIAS or NAME/VERSION
    if "@" in name:
        return client.get_model_version_by_alias(*name.split("@", 1))
    model, _, version = name.rpartition("/")
    if not model:
        raise RegistryError(f"{uri!r} names no version: expected models:/NAME@ALIAS or models:/NAME/VERSION.")
    return client.get_model_version(model, version)
