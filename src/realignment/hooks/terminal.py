"""Kedro hooks for the person at the terminal: seconds per stage, safe logs, readable errors, no typos."""

import difflib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, cast

import yaml
from kedro.config import OmegaConfigLoader
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node
from kedro.validation.exceptions import ParameterValidationError

from realignment.records import RealignmentError
from realignment.tracking import timing

log = logging.getLogger(__name__)

_RUNTIME_PARAMETER = re.compile(r"\$\{runtime_params:\s*(\w+)")


class UnknownParameterError(RealignmentError):
    """A runtime parameter that nothing reads: most likely a typo."""


class StageTimer:
    """Adds the seconds of each node, loads and saves included, to its outermost namespace: its stage."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Begin anew."""
        timing.restart()
        self._begun.clear()

    @hook_impl
    def before_dataset_loaded(self, node: Node) -> None:
        """The first load of a node begins it."""
        self._begun.setdefault(node.name, perf_counter())

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """So does its call, where it loads nothing."""
        self._begun.setdefault(node.name, perf_counter())

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Count the computation."""
        self._lap(node)

    @hook_impl
    def after_dataset_saved(self, node: Node) -> None:
        """Count the saving."""
        self._lap(node)

    def _lap(self, node: Node) -> None:
        now = perf_counter()
        begun = self._begun.get(node.name, now)
        timing.add((node.namespace or node.name).partition(".")[0], now - begun)
        self._begun[node.name] = now


class LoggingHooks:
    """Logs survive text like ``[/INST]``, expected errors are their message alone, known noise is silent."""

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        warnings.filterwarnings("ignore", message=r".*register_new_resolver\(\) is deprecated.*")

    @hook_impl(tryfirst=True)
    def after_context_created(self) -> None:
        """Set up the handlers that Kedro has configured by now, and the last words of the process."""
        for handler in logging.getLogger().handlers:
            handler.addFilter(_no_markup)  # adding it twice is one filter
        # Two lines per entry and node bury what a stage has to say; the node lines remain.
        logging.getLogger("kedro.io.data_catalog").setLevel(logging.WARNING)
        if sys.excepthook is not _show_error:
            _traceback_hooks.append(sys.excepthook)
            sys.excepthook = _show_error


class ParameterGuard:
    """Refuses `kedro run --params traning.epochs=2`: Kedro takes any name, and ignores what nothing reads."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Compare the runtime parameters with all names that the configuration declares or asks for.

        Raises:
            UnknownParameterError: Names with their nearest matches.
        """
        loader = cast(OmegaConfigLoader, context.config_loader)
        given, conf = set(loader.runtime_params or {}), Path(loader.conf_source)
        if not given or not conf.is_dir():  # a packed configuration is not opened for this
            return
        environment = context.env or loader.default_run_env or ""
        known = {name for folder in (loader.base_env or "", environment) for name in _declared(conf / folder)}
        if unknown := sorted(given - known):
            raise UnknownParameterError(_describe_unknown(unknown, sorted(known)))


def _declared(folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("*.yml")):
        text = file.read_text(encoding="utf-8")
        yield from _RUNTIME_PARAMETER.findall(text)
        if any(part.startswith(("parameters", "globals")) for part in file.relative_to(folder).parts):
            yield from yaml.safe_load(text) or {}


def _describe_unknown(unknown: list[str], known: list[str]) -> str:
    lines = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=3)
        lines.append(f"Unknown parameter '{name}'." + (f" Did you mean {' or '.join(near)}?" if near else ""))
    return "\n".join([*lines, f"Known are: {', '.join(known)}."])


def _no_markup(record: logging.LogRecord) -> bool:
    """Rich takes ``[/INST]`` in a message for markup, and raises; only Kedro's own lines are meant so."""
    record.__dict__.setdefault("markup", record.name.startswith("kedro."))
    return True


_traceback_hooks: list[Any] = []


def _show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """A mistake that we can name needs no traceback: its message says what to do. Others get theirs."""
    expected = _expected_in(error)
    if expected is None:
        _traceback_hooks[-1](kind, error, traceback)
        return
    log.debug("Traceback of the error below:", exc_info=(kind, error, traceback))
    sys.stdout.flush()
    sys.stderr.write(f"\nError: {expected}\n")


def _expected_in(error: BaseException | None) -> BaseException | None:
    """The outermost error of ours in a chain of causes (Kedro wraps what a dataset raises)."""
    while error is not None and not isinstance(error, RealignmentError | ParameterValidationError):
        error = error.__cause__ or error.__context__
    return error
