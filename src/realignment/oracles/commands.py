"""A command that works through a file: looked for first, ended when we are, and heard when it fails."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from realignment.records import OracleError

_PATIENCE_S = 20.0
_LAST_LINES, _LAST_BYTES = 15, 4000


def require_command(command: Sequence[str]) -> None:
    """Check that there is a program to start.

    Raises:
        OracleError: There is none.
    """
    if shutil.which(command[0]) is None:
        raise OracleError(
            f"There is no program {command[0]!r} to start. Install it (vLLM in an environment of its own: "
            "then give the whole path of its `vllm`), or set another "
            "`judging.vllm_batch.command`. Nothing has been asked yet."
        )


def fill_places(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The command with every ``{name}`` of `values` filled in; other braces, such as those of JSON, stay."""
    filled = []
    for argument in command:
        for name, value in values.items():
            argument = argument.replace(f"{{{name}}}", value)
        filled.append(argument)
    return filled


def run(command: Sequence[str], log: Path) -> int:
    """Run it to its end, all that it prints into `log`; where we are interrupted, so is it.

    Returns:
        Its exit code; negative: the signal that ended it.

    Raises:
        OSError: It cannot be started.
    """
    with log.open("wb") as printed:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that the processes which it starts, one for each GPU, end with it
        )
        try:
            return process.wait()
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    for way in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, way)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
            return


def last_lines(log: Path) -> str:
    """The end of what a command printed."""
    with log.open("rb") as printed:
        printed.seek(max(0, log.stat().st_size - _LAST_BYTES))
        lines = printed.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_LAST_LINES:]) or "(it printed nothing)"
