"""Write one MLflow run, with `MlflowClient` alone: no global state of MLflow can redirect it."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from realignment.records import RealignmentError
from realignment.tracking.children import log_children
from realignment.tracking.values import (
    divide,
    flatten,
    is_finite_number,
    legal_name,
    list_items,
    shorten_tags,
    split_value,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_PARAMS_PER_BATCH = 100
_METRICS_PER_BATCH = 1000
_DIGEST_LENGTH = 36
"""Limits of MLflow: values of one request, and characters of a digest."""

_MAX_FAILURES_IN_A_ROW = 3
"""Each call to a lost server waits through its retries; after so many failures no more calls are made."""

_INCOMPLETE = (
    "MLflow at %s could not log the %s: %s. The run goes on; its MLflow record will be incomplete, its files "
    "will not. Check the disk and the server."
)


class TrackingError(RealignmentError):
    """MLflow cannot be used as configured."""


class MlflowConfig(BaseModel):
    """`conf/<env>/mlflow.yml`. The environment variable MLFLOW_TRACKING_URI comes before `tracking_uri`.

    Without either, runs go to the SQLite file `mlflow.db` in the project folder. Beside a SQLite file lies
    the folder `mlartifacts`; a tracking server keeps artifacts where it is configured to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    tracking_uri: str | None = None
    experiment: str = "realignment"

    def absolute_uri(self, project_path: Path) -> str:
        """Return the tracking URI, with a SQLite path that starts at the project folder."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or self.tracking_uri or "sqlite:///mlflow.db"
        scheme, separator, path = uri.partition("sqlite:///")
        return f"{scheme}{separator}{project_path / path}" if separator else uri


class Tracker:
    """Writes to one run. Once it has begun, no failure of MLflow stops the work: it warns and goes on.

    Attributes:
        run_id: Of the MLflow run.
        tracking_uri: Of the store or server that has the run.
        failures: Number of calls that failed.
    """

    def __init__(self, client: "MlflowClient", run_id: str, tracking_uri: str, *, owned: bool) -> None:
        self.run_id = run_id
        self.tracking_uri = tracking_uri
        self.failures = 0
        self._client = client
        self._owned = owned  # a run that someone else created is not ended here
        self._failures_in_a_row = 0

    @classmethod
    def begin(cls, uri: str, *, experiment: str, name: str, tags: Mapping[str, str]) -> "Tracker":
        """Join the run that is active in this process or environment, else create one.

        Args:
            uri: Tracking URI; that of an active run of this process takes its place.
            experiment: Name of the experiment of a new run.
            name: Of a new run.
            tags: Set in either case.

        Returns:
            The tracker of the run.

        Raises:
            TrackingError: MLflow does not answer. Nothing is computed yet, so this is the moment to say so.
        """
        import mlflow

        active = mlflow.active_run()
        if active is not None:
            uri = mlflow.get_tracking_uri()
        run_id = active.info.run_id if active is not None else os.environ.get("MLFLOW_RUN_ID")
        try:
            client = mlflow.MlflowClient(tracking_uri=uri)
            if run_id is not None:
                client.get_run(run_id)
                tracker = cls(client, run_id, uri, owned=False)
                tracker.log_tags(tags)
                return tracker
            run = client.create_run(
                _experiment_id(client, uri, experiment), run_name=name, tags=shorten_tags(tags)
            )
            return cls(client, run.info.run_id, uri, owned=True)
        except Exception as error:  # MLflow, SQLAlchemy, HTTP and the file system share no base class
            raise TrackingError(
                f"MLflow at {uri} cannot be used: {error}\nStart that server, correct MLFLOW_TRACKING_URI "
                "(and MLFLOW_RUN_ID, if set), or switch MLflow off: `enabled: false` in conf/base/mlflow.yml."
            ) from error

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; a value that is too long is cut."""
        from mlflow.entities import RunTag

        entities = [RunTag(key, value) for key, value in shorten_tags(tags).items()]
        self.attempt("tags", lambda: self._client.log_batch(self.run_id, tags=entities))

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log nested parameters flat, `training.epochs`; a long value continues in `name.part2` and so on."""
        from mlflow.entities import Param

        entities = []
        for name, value in flatten(parameters):
            entities += [Param(legal_name(key), part) for key, part in split_value(name, value)]
        for batch in divide(entities, _PARAMS_PER_BATCH):
            self.attempt("parameters", partial(self._client.log_batch, self.run_id, params=batch))

    def log_metrics(self, name: str, report: Mapping[str, Any]) -> None:
        """Log every finite number of a nested report as metric `name/key.key`; truth values are 0 and 1."""
        values = []
        for path, leaf in flatten(report):
            for key, value in list_items(path, leaf):
                if is_finite_number(value):
                    values.append((f"{name}/{key}", float(value), 0))
        self._log_metrics(values)

    def log_history(self, name: str, table: pd.DataFrame) -> None:
        """Log every numeric column of a table as metric `name/column`, at the steps of its column `step`."""
        values = []
        for column in table.select_dtypes("number").columns.drop("step", errors="ignore"):
            for step, value in zip(table["step"], table[column], strict=True):
                if is_finite_number(value):
                    values.append((f"{name}/{column}", float(value), int(step)))
        self._log_metrics(values)

    def log_children(self, table: pd.DataFrame) -> None:
        """Log each cell of a comparison's table as a child run; see `tracking.children.log_children`."""
        self.attempt("child runs", lambda: log_children(self._client, self.run_id, table))

    def _log_metrics(self, values: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(legal_name(name), value, now, step) for name, value, step in values]
        for batch in divide(metrics, _METRICS_PER_BATCH):
            self.attempt("metrics", partial(self._client.log_batch, self.run_id, metrics=batch))

    def log_input(
        self, name: str, *, sha256: str, rows: int | None, context: str, version: str, path: str
    ) -> None:
        """Log a table as a dataset input.

        MLflow keeps 36 characters of a digest, and one source per digest for all runs: the whole digest, the
        Kedro version and the path of *this* run are therefore tags of the input.

        Args:
            name: Name of the dataset.
            sha256: Digest of the table.
            rows: Their number; None where the data is no table.
            context: What the table is used for, such as `training`.
            version: Kedro's version of the entry.
            path: Where the file lies.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"uri": path})
        profile = json.dumps({"num_rows": rows})
        dataset = Dataset(name, sha256[:_DIGEST_LENGTH], "local", source, profile=profile)
        tags = {
            "mlflow.data.context": context,
            "sha256": sha256,
            "kedro.version": version,
            "path": path[-500:],
        }
        entity = DatasetInput(dataset, [InputTag(key, value) for key, value in tags.items()])
        self.attempt(f"dataset {name}", lambda: self._client.log_inputs(self.run_id, datasets=[entity]))

    def log_artifact(self, path: Path, folder: str) -> None:
        """Copy a file or folder into an artifact folder of the run."""
        log_path = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self.attempt(f"artifact {path.name}", lambda: log_path(self.run_id, str(path), folder))

    def log_text(self, text: str, file: str) -> None:
        """Write a text as an artifact."""
        self.attempt(file, lambda: self._client.log_text(self.run_id, text, file))

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        """Give the run its last tags and, if it is ours, its status: FINISHED, FAILED or KILLED."""
        self._failures_in_a_row = 0  # a server that was lost may be back
        failures = {"realignment.tracking_failures": str(self.failures)} if self.failures else {}
        self.log_tags({**tags, **failures})
        if self._owned:
            self.attempt("status", lambda: self._client.set_terminated(self.run_id, status))

    def attempt(self, label: str, call: Callable[[], object]) -> None:
        """Call a function; a failure is counted, the first one logged, and none raised.

        Args:
            label: What the call logs, for the warning.
            call: Not called any more after several failures in a row.
        """
        if self._failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            return
        try:
            call()
            self._failures_in_a_row = 0
        except Exception as error:
            if not self.failures:
                log.warning(_INCOMPLETE, self.tracking_uri, label, error)
            self.failures += 1
            self._failures_in_a_row += 1


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None  # a tracking server has its own
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///"))
        location = (database.parent / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=location))
