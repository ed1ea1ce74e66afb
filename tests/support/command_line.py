"""`kedro run` as people type it: each in a process of its own, or one after another in a second process.

Kedro configures a whole process for one project. The tests of hooks and tracking use another project, so this
one is never configured in the process of the tests.
"""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from mlflow_store import client, tracking_uri

ROOT = Path(__file__).parents[2]
EXPERIMENT = "realignment-test"


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    error: str
    """What the person is told, empty where nothing is wrong."""
    output: str


def environment() -> dict[str, str]:
    ours = {
        "MLFLOW_TRACKING_URI": tracking_uri(), "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "COLUMNS": "200",
        "KEDRO_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
    }  # fmt: skip
    left_out = ("MLFLOW_RUN_ID", "KEDRO_ENV")
    return {key: value for key, value in os.environ.items() if key not in left_out} | ours


def arguments(*options: str, env: str = "test", **params: Any) -> list[str]:
    """Two underscores in the name of a parameter stand for a dot: `intake__limit=3`.

    Without parameters there is no `--params`, which would take the place of all those of a `--config`.
    """
    values = ",".join(f"{name.replace('__', '.')}={value}" for name, value in params.items())
    return ["run", "--env", env, *options, *(["--params", values] if params else [])]


def kedro(*options: str, **params: Any) -> Outcome:
    """`kedro run` in a process of its own."""
    command = [sys.executable, "-m", "kedro", *arguments(*options, **params)]
    process = subprocess.run(
        command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=600, check=False,
    )  # fmt: skip
    return Outcome(process.returncode, process.stdout.rpartition("\nError: ")[2].strip(), process.stdout)


class KedroProcess:
    """`kedro run`, one after another in one process that has imported everything already."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def __call__(self, *options: str, **params: Any) -> Outcome:
        return self._pool.submit(_invoke, arguments(*options, **params)).result(timeout=600)


@contextmanager
def kedro_process() -> Iterator[KedroProcess]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_enter, initargs=(environment(),)) as pool:
        yield KedroProcess(pool)


def _enter(variables: dict[str, str]) -> None:
    os.environ.pop("MLFLOW_RUN_ID", None)
    os.environ.update(variables)
    os.chdir(ROOT)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A test run that is killed would leave this process behind, waiting for work for ever."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _invoke(command: list[str]) -> Outcome:
    from click.testing import CliRunner
    from kedro.framework.cli.cli import KedroCLI

    from realignment.hooks.terminal import find_expected_error

    result = CliRunner().invoke(KedroCLI(ROOT), command)
    error = find_expected_error(result.exception) or result.exception if result.exit_code else ""
    return Outcome(result.exit_code, str(error), result.output)


def latest_run(pipelines: str) -> Any:
    """The newest MLflow run of these pipelines."""
    experiment = client().get_experiment_by_name(EXPERIMENT)
    return client().search_runs(
        [experiment.experiment_id], f"tags.`kedro.pipelines` = '{pipelines}'", max_results=1
    )[0]


def versions(entry: Path) -> list[str]:
    """Kedro's versions of an entry, oldest first."""
    return sorted(folder.name for folder in entry.iterdir())


def saved(entry: Path, version: str | None = None) -> Path:
    """The file of one version of an entry, by default the newest."""
    return entry / (version or versions(entry)[-1]) / entry.name
