"""Where a result comes from: code revision, command, platform, package versions."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

_PACKAGES = ("kedro", "mlflow", "torch", "transformers", "trl", "peft")


def get_code_revision(folder: Path) -> str | None:
    """Return the git commit of a folder, or None outside of git.

    Args:
        folder: Anywhere in a working tree.

    Returns:
        The commit, with `+dirty` at its end where tracked files differ from it.
    """
    commit = _run_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+dirty" if changes else commit


def _run_git(folder: Path, *arguments: str) -> str | None:
    try:
        process = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None


def format_command() -> str:
    """Return the command of this process, as one would type it."""
    program = Path(sys.argv[0])
    # `python -m kedro` runs `…/kedro/__main__.py`: the folder has the name that was typed.
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])


def describe_environment() -> dict[str, str]:
    """Return Python, platform, and the versions of the packages that numbers depend on."""
    environment = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            environment[package] = version(package)
        except PackageNotFoundError:
            continue
    return environment


def list_requirements() -> str:
    """Return every installed distribution as a line `name==version`, sorted, as in `pip freeze`."""
    pins = {f"{distribution.name}=={distribution.version}" for distribution in distributions()}
    return "\n".join(sorted(pins, key=str.lower)) + "\n"
