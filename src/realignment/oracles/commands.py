"""External commands: check that the program exists, run it, end it with this process, read its log."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from realignment.records import OracleError

_TERMINATION_S = 20.0
"""Seconds between SIGTERM and SIGKILL."""
_TAIL_LINES = 15
_TAIL_BYTES = 4000


def require_command(command: Sequence[str]) -> None:
    """Check that the program of a command exists.

    Args:
        command: Program and arguments.

    Raises:
        OracleError: There is no such program.
    """
    if shutil.which(command[0]) is None:
        raise OracleError(
            f"There is no program {command[0]!r} to start. Install it (vLLM in an environment of its own: "
            "then give the whole path of its `vllm`), or set another "
            "`judging.vllm_batch.command`. Nothing has been asked yet."
        )


def fill_placeholders(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return the command with each ``{name}`` of `values` filled in; other braces, as those of JSON, stay."""
    filled = []
    for argument in command:
        for name, value in values.items():
            argument = argument.replace(f"{{{name}}}", value)
        filled.append(argument)
    return filled


def run_command(command: Sequence[str], log: Path) -> int:
    """Run a command to its end; it is terminated where this process is interrupted.

    Args:
        command: Program and arguments.
        log: File for all that it prints.

    Returns:
        Its exit code; negative: the signal that ended it.

    Raises:
        OSError: It cannot be started.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group, so that its children (one per GPU) end with it
        )
        try:
            return process.wait()
        except BaseException:
            _terminate(process)
            raise


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """End the process group, by force where it does not end when asked to."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_TERMINATION_S)
            return


def read_log_tail(log: Path) -> str:
    """Return the last lines of what a command printed."""
    with log.open("rb") as output:
        output.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = output.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:]) or "(it printed nothing)"
