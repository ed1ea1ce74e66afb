"""Where a result comes from: code revision, command, platform, package versions."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

_PACKAGES = ("kedro", "mlflow", "torch", "transformers", "trl", "peft")


def code_revision(folder: Path) -> str | None:
    """The git commit of a folder, with `+dirty` where tracked files differ from it; None outside of git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit}+dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def command() -> str:
    """The command of this process, as one would type it."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name  # `python -m kedro`
    return shlex.join([name, *sys.argv[1:]])


def environment() -> dict[str, str]:
    """Python, platform, and the versions of the packages that numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def requirements() -> str:
    """Every installed distribution as a line `name==version`, sorted, as in `pip freeze`."""
    pins = {f"{distribution.name}=={distribution.version}" for distribution in distributions()}
    return "\n".join(sorted(pins, key=str.lower)) + "\n"
