"""What the person at the terminal sees: logs that survive any text, and expected errors as one message."""

import logging
import os
import sys
import warnings
from types import TracebackType
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.validation.exceptions import ParameterValidationError

from realignment.records import RealignmentError

log = logging.getLogger(__name__)


class LoggingHooks:
    """Logs survive text like ``[/INST]``, expected errors are their message alone, known noise is silent."""

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        warnings.filterwarnings("ignore", message=r".*register_new_resolver\(\) is deprecated.*")

    @hook_impl(tryfirst=True)
    def after_context_created(self) -> None:
        """Set up the log handlers, which Kedro has configured by now, and how errors are shown."""
        for handler in logging.getLogger().handlers:
            handler.addFilter(_disable_markup)  # adding it twice is one filter
        # Two lines per entry and node bury the messages of a stage; the lines of the nodes remain.
        logging.getLogger("kedro.io.data_catalog").setLevel(logging.WARNING)
        if sys.excepthook is not _show_error:
            _traceback_hooks.append(sys.excepthook)
            sys.excepthook = _show_error


def _disable_markup(record: logging.LogRecord) -> bool:
    """Rich takes ``[/INST]`` in a message for markup and fails; only Kedro's own lines use markup."""
    record.__dict__.setdefault("markup", record.name.startswith("kedro."))
    return True


_traceback_hooks: list[Any] = []
"""The exception hooks of before; the last one shows the errors that are not expected."""


def _show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Show an expected error without a traceback, because its message says what to do; others with one."""
    expected = find_expected_error(error)
    if expected is None:
        _traceback_hooks[-1](kind, error, traceback)
        return
    log.debug("Traceback of the error below:", exc_info=(kind, error, traceback))
    sys.stdout.flush()
    sys.stderr.write(f"\nError: {expected}\n")


def find_expected_error(error: BaseException | None) -> BaseException | None:
    """Return the outermost error of ours in a chain of causes (Kedro wraps what a dataset raises).

    Args:
        error: The outermost error.

    Returns:
        None where no error of the chain is ours.
    """
    while error is not None and not isinstance(error, RealignmentError | ParameterValidationError):
        error = error.__cause__ or error.__context__
    return error
