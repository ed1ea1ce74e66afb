import hashlib
import multiprocessing
import time
from pathlib import Path

from realignment.model.store import Origin, store_model


def write_model(folder: Path, weights: bytes = b"weights") -> Origin:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return Origin(hashlib.sha256(weights).hexdigest())


def test_what_a_killed_fetch_left_is_ignored_and_removed(tmp_path):
    left = tmp_path / "name.partial"
    left.mkdir()
    write_model(left, b"half")
    reference = store_model("org/name", tmp_path, write_model, sha256=None, revision=None)
    assert not left.exists()
    assert (Path(reference.path) / "model.safetensors").read_bytes() == b"weights"


def test_a_damaged_model_is_fetched_again(tmp_path, caplog):
    reference = store_model("org/name", tmp_path, write_model, sha256=None, revision=None)
    (Path(reference.path) / "model.safetensors").write_bytes(b"")
    assert store_model("org/name", tmp_path, write_model, sha256=None, revision=None) == reference
    assert (Path(reference.path) / "model.safetensors").read_bytes() == b"weights"
    assert "cut off" in caplog.text


def test_another_revision_is_another_model(tmp_path):
    first = store_model("org/name", tmp_path, write_model, sha256=None, revision="v1")
    other = store_model(
        "org/name", tmp_path, lambda folder: write_model(folder, b"v2"), sha256=None, revision="v2"
    )
    assert first.path != other.path
    assert store_model("org/name", tmp_path, write_model, sha256=None, revision="v1") == first


def fill_slowly(folder: Path) -> Origin:
    with (folder.parent / "fetches.log").open("a") as log:
        log.write("fetch\n")
    time.sleep(0.5)
    return write_model(folder)


def store_slowly(folder: Path) -> str:
    return store_model("org/name", folder, fill_slowly, sha256=None, revision=None).path


def test_of_two_processes_one_fetches_and_both_get_the_model(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.map(store_slowly, [tmp_path, tmp_path], chunksize=1)
    assert len(set(paths)) == 1
    assert (tmp_path / "fetches.log").read_text() == "fetch\n"
