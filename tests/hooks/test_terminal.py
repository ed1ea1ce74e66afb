"""Logs that survive any text; the real `kedro` command and how it ends."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import kedro.logging
import pytest
from mlflow_store import client

from realignment.hooks.terminal import LoggingHooks


def test_logs_survive_model_text():
    handler = kedro.logging.RichHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        LoggingHooks().after_context_created()
        logging.getLogger("any.library").warning("a [/INST] b")
    finally:
        root.removeHandler(handler)


SETTINGS = """
from realignment.hooks import LoggingHooks, ParameterGuard, StageTimer
from realignment.hooks import MlflowHooks
HOOKS = (MlflowHooks(), StageTimer(), ParameterGuard(), LoggingHooks())
CONFIG_LOADER_ARGS = {
    "base_env": "base", "default_run_env": "local", "config_patterns": {"mlflow": ["mlflow*", "**/mlflow*"]}
}
"""
REGISTRY = """
import logging, time
from kedro.pipeline import Node, Pipeline
from realignment.records import DataError
def fail(raw):
    logging.getLogger("tiny").info("model text [/INST]")
    raise DataError("Row 3: `prompt` is empty [/INST], expected text: remove the row.")
def sleep(raw):
    time.sleep(60)
def register_pipelines():
    nodes = {"failing": fail, "sleeping": sleep}
    return {name: Pipeline([Node(call, "raw_pairs", "out", name=name)]) for name, call in nodes.items()}
"""


@pytest.fixture
def command_line(project):
    """`kedro` in a project of its own, as a process."""
    package = project / "src/tiny"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "settings.py").write_text(SETTINGS)
    (package / "pipeline_registry.py").write_text(REGISTRY)
    (project / "pyproject.toml").write_text(
        '[tool.kedro]\npackage_name = "tiny"\nproject_name = "tiny"\nkedro_init_version = "1.7.0"\n'
    )
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "DO_NOT_TRACK": "1", "COLUMNS": "200"}

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kedro", "run", *arguments]
        return subprocess.Popen(
            command, cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    return start


@pytest.mark.slow
def test_an_expected_error_ends_in_its_message_without_a_traceback(command_line):
    process = command_line("--pipelines", "failing")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output.endswith("\nError: Row 3: `prompt` is empty [/INST], expected text: remove the row.\n")
    assert "Traceback" not in output
    assert "model text [/INST]" in output
    assert "register_new_resolver" not in output


@pytest.mark.slow
def test_an_unknown_parameter_is_refused_on_the_command_line(command_line):
    process = command_line("--pipelines", "failing", "--params", "traige.min_confidence=2")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output.split("\nError: ")[1].startswith("Unknown parameter 'traige'. Did you mean triage?")


@pytest.mark.slow
@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_marked_killed(command_line, interrupt):
    process = command_line("--pipelines", "sleeping")
    for line in process.stdout:
        if "Running node" in line:
            break
    time.sleep(0.5)
    process.send_signal(interrupt)
    process.communicate(timeout=60)
    newest = client().search_runs([client().get_experiment_by_name("tests").experiment_id], max_results=1)[0]
    assert newest.data.tags["kedro.pipelines"] == "sleeping"
    assert newest.info.status == "KILLED"
