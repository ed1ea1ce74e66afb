"""Record every `kedro run` as one MLflow run."""

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
from pydantic import ValidationError

from realignment.hooks.entry_logging import EntryLogging, entry_path, read_entry_logging
from realignment.policy import Policy
from realignment.records import NothingToDo
from realignment.table_files import Table, compute_digest
from realignment.tracking import provenance
from realignment.tracking.run import MlflowConfig, Tracker, TrackingError

RunParams = dict[str, Any]
Catalog = CatalogProtocol[Any, Any]


class MlflowHooks:
    """One MLflow run per `kedro run`, driven by `metadata: {mlflow: …}` in the catalog (`EntryLogging`).

    A table with `input` is logged when it is saved, and when a later run loads it. MLFLOW_RUN_ID and
    MLFLOW_TRACKING_URI are set while the run lasts: child processes and `registry` write to the same run.
    """

    def __init__(self) -> None:
        # MLflow's own default, 7 retries, holds a run for four minutes per call where a server is gone.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        self._config = MlflowConfig(enabled=False)
        self._project_path = Path()
        self._parameters: Mapping[str, Any] = {}
        self._tracker: Tracker | None = None
        # The entries of the pipeline that are to be logged, and the names of those that were.
        self._datasets: dict[str, AbstractDataset[Any, Any]] = {}
        self._entries: dict[str, EntryLogging] = {}
        self._logged: set[str] = set()
        # Environment variables as they were before the run; None where one was not set.
        self._saved_environment: dict[str, str | None] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Read `mlflow.yml` of the environment.

        Args:
            context: Of the run.

        Raises:
            TrackingError: The file is not valid.
        """
        self._project_path = Path(context.project_path)
        try:
            self._config = MlflowConfig.model_validate(context.config_loader["mlflow"])
        except (KeyError, MissingConfigException):
            self._config = MlflowConfig()
        except ValidationError as error:
            raise TrackingError(f"mlflow.yml is not valid: {error}") from error

    @hook_impl
    def after_catalog_created(self, parameters: Mapping[str, Any]) -> None:
        """Store the parameters as Kedro has validated them."""
        self._parameters = parameters

    @hook_impl
    def before_pipeline_run(self, run_params: RunParams, pipeline: Pipeline, catalog: Catalog) -> None:
        """Begin the run; log parameters, code and environment."""
        self._close_open_run()  # an interrupt in a notebook leaves the last run open
        NothingToDo.latest = None
        if not self._config.enabled:
            return
        self._find_entries(pipeline, catalog)
        pipelines = "+".join(sorted(run_params["pipeline_names"] or ["__default__"]))  # Kedro shuffles them
        self._tracker = Tracker.begin(
            self._config.absolute_uri(self._project_path),
            experiment=self._config.experiment,
            name=f"{pipelines} {run_params['run_id']}",
            tags=_tags(run_params, pipelines, self._project_path),
        )
        self._set_environment(self._tracker)
        parameters = {}
        for name in pipeline.inputs():
            if name == "parameters" or name.startswith("params:"):
                parameters[name.removeprefix("params:")] = self._parameters.get(name)
        self._tracker.log_parameters(parameters)
        self._tracker.attempt("requirements", self._log_requirements)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Log a table that this run uses, and the policy that it works for."""
        if self._tracker is None or dataset_name in self._logged:
            return
        self._logged.add(dataset_name)
        if isinstance(data, Policy):
            self._tracker.log_tags(
                {
                    f"{dataset_name}.name": data.name,
                    f"{dataset_name}.version": data.version,
                    f"{dataset_name}.digest": data.digest,
                }
            )
        entry = self._entries.get(dataset_name)
        if entry is not None:
            self._tracker.attempt(dataset_name, lambda: self._log_loaded(dataset_name, data, entry))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log what this run has made, as the metadata of its entry says."""
        entry = self._entries.get(dataset_name)
        if self._tracker is not None and entry is not None:
            self._logged.add(dataset_name)
            self._tracker.attempt(dataset_name, lambda: self._log_saved(dataset_name, data, entry))

    @hook_impl
    def after_pipeline_run(self) -> None:
        """End the run as finished."""
        self._end("FINISHED", {})

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """End the run with the error that stopped it."""
        self._end("FAILED", {"error": f"{type(error).__name__}: {error}"})

    def _find_entries(self, pipeline: Pipeline, catalog: Catalog) -> None:
        # Only the datasets of this pipeline are opened: others may need a package that is not installed.
        self._entries = {}
        self._datasets = {}
        self._logged = set()
        for name in sorted(pipeline.datasets()):
            dataset = catalog.get(name)
            entry = read_entry_logging(name, dataset) if dataset is not None else None
            if dataset is not None and entry is not None:
                self._datasets[name] = dataset
                self._entries[name] = entry

    def _log_requirements(self) -> None:
        assert self._tracker is not None
        self._tracker.log_text(provenance.list_requirements(), "environment/requirements.txt")

    def _log_loaded(self, name: str, data: Any, entry: EntryLogging) -> None:
        assert self._tracker is not None
        dataset = self._datasets[name]
        if not dataset.exists():  # a table that nobody has given or made yet
            return
        version = dataset.resolve_load_version() if isinstance(dataset, AbstractVersionedDataset) else None
        path = entry_path(dataset, version)
        if entry.input is not None:
            self._log_input(name, data, entry.input, version, path)
        if entry.artifact is not None and isinstance(data, Policy):  # no node ever saves it
            self._tracker.log_artifact(path, entry.artifact)

    def _log_saved(self, name: str, data: Any, entry: EntryLogging) -> None:
        assert self._tracker is not None
        dataset = self._datasets[name]
        version = dataset.resolve_save_version() if isinstance(dataset, AbstractVersionedDataset) else None
        path = entry_path(dataset, version)
        if entry.input is not None:
            self._log_input(name, data, entry.input, version, path)
        if entry.metrics:
            self._tracker.log_metrics(name, data)
        if entry.history:
            self._tracker.log_history(name, data)
        if entry.children:
            self._tracker.log_children(data)
        if entry.artifact is not None:
            self._tracker.log_artifact(path, entry.artifact)

    def _log_input(self, name: str, data: Any, context: str, version: str | None, path: Path) -> None:
        assert self._tracker is not None
        rows = len(data) if isinstance(data, Table) else None
        sha256 = compute_digest(data) if rows is not None else hashlib.sha256(path.read_bytes()).hexdigest()
        self._tracker.log_input(
            name, sha256=sha256, rows=rows, context=context, version=version or "unversioned", path=str(path)
        )

    def _set_environment(self, tracker: Tracker) -> None:
        variables = {"MLFLOW_RUN_ID": tracker.run_id, "MLFLOW_TRACKING_URI": tracker.tracking_uri}
        self._saved_environment = {key: os.environ.get(key) for key in variables}
        os.environ.update(variables)
        # Kedro calls no hook at a KeyboardInterrupt or SystemExit, so such a run is closed as Python exits;
        # SIGTERM (a scheduler's preemption) is turned into such an exit.
        atexit.register(self._close_open_run)
        # Python sets signal handlers in its main thread alone; a handler of someone else stays.
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _exit_on_signal)

    def _close_open_run(self) -> None:
        """Close a run that Kedro has left: it had nothing to do, which is a good end, or was interrupted."""
        if NothingToDo.latest is None:
            self._end("KILLED", {})
        else:
            self._end("FINISHED", {"nothing_to_do": NothingToDo.latest.reason})

    def _end(self, status: str, tags: Mapping[str, str]) -> None:
        tracker = self._tracker
        self._tracker = None
        if tracker is None:
            return
        atexit.unregister(self._close_open_run)
        tracker.end(status, tags)
        for key, value in self._saved_environment.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def _tags(run_params: RunParams, pipelines: str, project_path: Path) -> dict[str, str]:
    revision = provenance.get_code_revision(project_path)
    tags = {
        "mlflow.source.name": provenance.format_command(),
        "mlflow.source.type": "PROJECT",
        "mlflow.user": getpass.getuser(),
        "kedro.run_id": run_params["run_id"],
        "kedro.pipelines": pipelines,
        "kedro.env": str(run_params["env"]),
        "kedro.version": run_params["kedro_version"],
        "kedro.command": provenance.format_command(),
        "kedro.runtime_params": json.dumps(run_params["runtime_params"], default=str),
        **{f"environment.{name}": value for name, value in provenance.describe_environment().items()},
    }
    if revision is not None:
        tags |= {
            "mlflow.source.git.commit": revision.removesuffix("+dirty"),
            "git.dirty": str("+dirty" in revision),
        }
    return tags


def _exit_on_signal(number: int, _frame: object) -> None:
    sys.exit(128 + number)  # the exit status that shells give a process that a signal ended
