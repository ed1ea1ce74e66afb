"""One MLflow run, written with `MlflowClient` alone: no fluent state of MLflow can redirect it."""

import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from realignment.records import RealignmentError

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_PARAMS_PER_BATCH, _METRICS_PER_BATCH, _PARAM_LENGTH, _TAG_LENGTH = (
    100,
    1000,
    6000,
    8000,
)  # MLflow's own limits
_NAME_LENGTH, _DIGEST_LENGTH = 250, 36
_FAILURES_BEFORE_SILENCE = 3
"""A lost server makes each call wait through its retries; after so many in a row no more are made."""

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
        """The tracking URI; a relative SQLite path starts at the project folder, not at the current one."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or self.tracking_uri or "sqlite:///mlflow.db"
        scheme, separator, path = uri.partition("sqlite:///")
        return f"{scheme}{separator}{project_path / path}" if separator else uri


class Tracker:
    """Writes to one run. Once it has begun, no failure of MLflow stops the work: it warns and goes on."""

    def __init__(self, client: "MlflowClient", run_id: str, tracking_uri: str, *, owned: bool) -> None:
        self.run_id, self.tracking_uri, self.failures = run_id, tracking_uri, 0
        self._client, self._owned, self._failures_in_a_row = client, owned, 0

    @classmethod
    def begin(cls, uri: str, *, experiment: str, name: str, tags: Mapping[str, str]) -> "Tracker":
        """Join the run that is active in this process or environment, else create one.

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
                _experiment_id(client, uri, experiment), run_name=name, tags=_short_tags(tags)
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

        entities = [RunTag(key, value) for key, value in _short_tags(tags).items()]
        self.attempt("tags", lambda: self._client.log_batch(self.run_id, tags=entities))

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log nested parameters flat, `training.epochs`; a long value continues in `name.part2` and so on."""
        from mlflow.entities import Param

        entities = [
            Param(_legal(key), part)
            for name, value in flatten(parameters)
            for key, part in _parts(name, value)
        ]
        for batch in _batches(entities, _PARAMS_PER_BATCH):
            self.attempt("parameters", partial(self._client.log_batch, self.run_id, params=batch))

    def log_metrics(self, name: str, report: Mapping[str, Any]) -> None:
        """Log every finite number of a nested report as metric `name/key.key`; truth values are 0 and 1."""
        leaves = ((key, value) for key, leaf in flatten(report) for key, value in _items(key, leaf))
        self._log_metrics([(f"{name}/{key}", float(value), 0) for key, value in leaves if _is_number(value)])

    def log_history(self, name: str, table: pd.DataFrame) -> None:
        """Log every numeric column of a table as metric `name/column`, at the steps of its column `step`."""
        columns = table.select_dtypes("number").columns.drop("step", errors="ignore")
        self._log_metrics(
            [
                (f"{name}/{column}", float(value), int(step))
                for column in columns
                for step, value in zip(table["step"], table[column], strict=True)
                if _is_number(value)
            ]
        )

    def _log_metrics(self, values: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_legal(name), value, now, step) for name, value, step in values]
        for batch in _batches(metrics, _METRICS_PER_BATCH):
            self.attempt("metrics", partial(self._client.log_batch, self.run_id, metrics=batch))

    def log_input(
        self, name: str, *, sha256: str, rows: int | None, context: str, version: str, path: str
    ) -> None:
        """Log a table as a dataset input.

        MLflow keeps 36 characters of a digest, and one source per digest for all runs: the whole digest, the
        Kedro version and the path of *this* run are therefore tags of the input.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source, profile = json.dumps({"uri": path}), json.dumps({"num_rows": rows})
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

    def attempt(self, what: str, call: Callable[[], object]) -> None:
        """Call; a failure is counted, the first one logged, and none raised."""
        if self._failures_in_a_row >= _FAILURES_BEFORE_SILENCE:
            return
        try:
            call()
            self._failures_in_a_row = 0
        except Exception as error:
            if not self.failures:
                log.warning(_INCOMPLETE, self.tracking_uri, what, error)
            self.failures += 1
            self._failures_in_a_row += 1


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    database = Path(uri.partition("sqlite:///")[2])
    location = (database.parent / "mlartifacts").as_uri() if uri.startswith("sqlite:///") else None
    return str(client.create_experiment(name, artifact_location=location))


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings, models and dataclasses, each with its dotted name; a list is a leaf."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _items(name: str, leaf: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(leaf, list | tuple):
        return ((f"{name}.{place}", item) for place, item in enumerate(leaf))
    return iter([(name, leaf)])


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _parts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    for number, start in enumerate(range(0, max(len(text), 1), _PARAM_LENGTH), start=1):
        yield (name if number == 1 else f"{name}.part{number}"), text[start : start + _PARAM_LENGTH]


def _legal(name: str) -> str:
    return re.sub(r"[^\w\-. /]", "_", name)[:_NAME_LENGTH]


def _short_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:_TAG_LENGTH] for key, value in tags.items()}


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
