"""Kedro tells, MLflow records: one MLflow run per `kedro run`."""

import atexit
import getpass
import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import AbstractDataset, AbstractVersionedDataset, CatalogProtocol
from kedro.pipeline import Pipeline
from pydantic import BaseModel, ConfigDict, ValidationError

from realignment.policy import Policy
from realignment.records import NothingToDo
from realignment.table_files import Table, digest
from realignment.tracking import provenance
from realignment.tracking.run import MlflowConfig, Tracker, TrackingError

RunParams = dict[str, Any]
Catalog = CatalogProtocol[Any, Any]


class EntryLogging(BaseModel):
    """What a catalog entry's `metadata: {mlflow: …}` asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: str | None = None
    """Context (such as `training`) under which the table is logged as a dataset input."""
    metrics: bool = False
    """Log the numbers of a JSON report as metrics."""
    artifact: str | None = None
    """Artifact folder that receives the file as it was saved."""
    history: bool = False
    """Log the columns of a table as metrics, its column `step` as their step."""


class MlflowHooks:
    """One MLflow run per `kedro run`, driven by `metadata: {mlflow: …}` in the catalog (`EntryLogging`).

    A table with `input` is logged when it is saved, and when a later run loads it. MLFLOW_RUN_ID and
    MLFLOW_TRACKING_URI are set while the run lasts: child processes and `registry` write to the same run.
    """

    def __init__(self) -> None:
        # MLflow's own default, 7 retries, holds a run for four minutes per call where a server is gone.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        self._config, self._project_path = MlflowConfig(enabled=False), Path()
        self._parameters: Mapping[str, Any] = {}
        self._tracker: Tracker | None = None
        self._datasets: dict[str, AbstractDataset[Any, Any]] = {}
        self._entries: dict[str, EntryLogging] = {}
        self._seen: set[str] = set()
        self._environment: dict[str, str | None] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Read `mlflow.yml` of the environment."""
        self._project_path = Path(context.project_path)
        try:
            self._config = MlflowConfig.model_validate(context.config_loader["mlflow"])
        except (KeyError, MissingConfigException):
            self._config = MlflowConfig()
        except ValidationError as error:
            raise TrackingError(f"mlflow.yml is not valid: {error}") from error

    @hook_impl
    def after_catalog_created(self, parameters: Mapping[str, Any]) -> None:
        """Keep the parameters as Kedro has validated them."""
        self._parameters = parameters

    @hook_impl
    def before_pipeline_run(self, run_params: RunParams, pipeline: Pipeline, catalog: Catalog) -> None:
        """Begin the run; log parameters, code and environment. Opens the entries of this pipeline only."""
        self._abandon()  # an interrupt in a notebook leaves the last run open
        NothingToDo.latest = None
        if not self._config.enabled:
            return
        self._entries, self._datasets, self._seen = {}, {}, set()
        for name in sorted(pipeline.datasets()):
            dataset = catalog.get(name)
            if dataset is not None and (asked := _asked_of(name, dataset)) is not None:
                self._datasets[name], self._entries[name] = dataset, asked
        pipelines = "+".join(sorted(run_params["pipeline_names"] or ["__default__"]))  # Kedro shuffles them
        self._tracker = Tracker.begin(
            self._config.absolute_uri(self._project_path),
            experiment=self._config.experiment,
            name=f"{pipelines} {run_params['run_id']}",
            tags=_tags(run_params, pipelines, self._project_path),
        )
        self._enter_environment(self._tracker)
        used = [name for name in pipeline.inputs() if name == "parameters" or name.startswith("params:")]
        self._tracker.log_parameters(
            {name.removeprefix("params:"): self._parameters.get(name) for name in used}
        )
        self._tracker.attempt("requirements", self._log_requirements)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Log a table that this run uses, and the policy that it works for."""
        if self._tracker is None or dataset_name in self._seen:
            return
        self._seen.add(dataset_name)
        if isinstance(data, Policy):
            tags = {"name": data.name, "version": data.version, "digest": data.digest}
            self._tracker.log_tags({f"{dataset_name}.{key}": value for key, value in tags.items()})
        if (asked := self._entries.get(dataset_name)) is not None:
            self._tracker.attempt(dataset_name, lambda: self._log_loaded(dataset_name, data, asked))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log what the entry asks for."""
        asked = self._entries.get(dataset_name)
        if self._tracker is not None and asked is not None:
            self._seen.add(dataset_name)
            self._tracker.attempt(dataset_name, lambda: self._log_saved(dataset_name, data, asked))

    @hook_impl
    def after_pipeline_run(self) -> None:
        """End the run well."""
        self._end("FINISHED", {})

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """End the run with the error that stopped it."""
        self._end("FAILED", {"error": f"{type(error).__name__}: {error}"})

    def _log_requirements(self) -> None:
        assert self._tracker is not None
        self._tracker.log_text(provenance.requirements(), "environment/requirements.txt")

    def _log_loaded(self, name: str, data: Any, asked: EntryLogging) -> None:
        assert self._tracker is not None
        dataset = self._datasets[name]
        if not dataset.exists():  # a table that nobody has brought or made yet
            return
        version = dataset.resolve_load_version() if isinstance(dataset, AbstractVersionedDataset) else None
        path = _path(dataset, version)
        if asked.input is not None:
            self._log_input(name, data, asked.input, version, path)
        if asked.artifact is not None and isinstance(data, Policy):  # no node ever saves it
            self._tracker.log_artifact(path, asked.artifact)

    def _log_saved(self, name: str, data: Any, asked: EntryLogging) -> None:
        assert self._tracker is not None
        dataset = self._datasets[name]
        version = dataset.resolve_save_version() if isinstance(dataset, AbstractVersionedDataset) else None
        path = _path(dataset, version)
        if asked.input is not None:
            self._log_input(name, data, asked.input, version, path)
        if asked.metrics:
            self._tracker.log_metrics(name, data)
        if asked.history:
            self._tracker.log_history(name, data)
        if asked.artifact is not None:
            self._tracker.log_artifact(path, asked.artifact)

    def _log_input(self, name: str, data: Any, context: str, version: str | None, path: Path) -> None:
        assert self._tracker is not None
        rows = len(data) if isinstance(data, Table) else None
        sha256 = digest(data) if rows is not None else hashlib.sha256(path.read_bytes()).hexdigest()
        self._tracker.log_input(
            name, sha256=sha256, rows=rows, context=context, version=version or "unversioned", path=str(path)
        )

    def _enter_environment(self, tracker: Tracker) -> None:
        entered = {"MLFLOW_RUN_ID": tracker.run_id, "MLFLOW_TRACKING_URI": tracker.tracking_uri}
        self._environment = {key: os.environ.get(key) for key in entered}
        os.environ.update(entered)
        # Kedro tells hooks of no KeyboardInterrupt or SystemExit, so such a run is closed as Python exits;
        # SIGTERM (a scheduler's preemption) is turned into such an exit.
        atexit.register(self._abandon)
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):
            signal.signal(signal.SIGTERM, _exit_on_signal)

    def _abandon(self) -> None:
        """Close a run that Kedro has left: it had nothing to do, which is a good end, or was interrupted."""
        if NothingToDo.latest is None:
            self._end("KILLED", {})
        else:
            self._end("FINISHED", {"nothing_to_do": NothingToDo.latest.reason})

    def _end(self, status: str, tags: Mapping[str, str]) -> None:
        tracker, self._tracker = self._tracker, None
        if tracker is None:
            return
        atexit.unregister(self._abandon)
        tracker.end(status, tags)
        for key, value in self._environment.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def _asked_of(name: str, dataset: AbstractDataset[Any, Any]) -> EntryLogging | None:
    metadata = getattr(dataset, "metadata", None)  # Kedro leaves this attribute to each dataset class
    asked = metadata.get("mlflow") if isinstance(metadata, Mapping) else None
    if asked is None:
        return None
    try:
        return EntryLogging.model_validate(asked)
    except ValidationError as error:
        raise TrackingError(
            f"The catalog entry '{name}' has metadata for mlflow that is not valid: {error}"
        ) from error


def _path(dataset: AbstractDataset[Any, Any], version: str | None) -> Path:
    filepath = getattr(dataset, "_filepath", "")  # Kedro has no public name for it
    if isinstance(dataset, AbstractVersionedDataset) and version is not None:
        filepath = dataset._get_versioned_path(version)
    return Path(filepath)


def _tags(run_params: RunParams, pipelines: str, project_path: Path) -> dict[str, str]:
    revision = provenance.code_revision(project_path)
    tags = {
        "mlflow.source.name": provenance.command(),
        "mlflow.source.type": "PROJECT",
        "mlflow.user": getpass.getuser(),
        "kedro.run_id": run_params["run_id"],
        "kedro.pipelines": pipelines,
        "kedro.env": str(run_params["env"]),
        "kedro.version": run_params["kedro_version"],
        "kedro.command": provenance.command(),
        "kedro.runtime_params": json.dumps(run_params["runtime_params"], default=str),
        **{f"environment.{name}": value for name, value in provenance.environment().items()},
    }
    if revision is not None:
        tags |= {
            "mlflow.source.git.commit": revision.removesuffix("+dirty"),
            "git.dirty": str("+dirty" in revision),
        }
    return tags


def _exit_on_signal(number: int, _frame: object) -> None:
    sys.exit(128 + number)
