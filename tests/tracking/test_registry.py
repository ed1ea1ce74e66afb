"""A real registry on SQLite: versions, aliases, and a model that a fresh process loads and runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from kedro.io import Version
from mlflow_store import client, tracking_uri
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from realignment.datasets import CheckpointDataset
from realignment.tracking.registry import RegistryError, load_registered, read_champion, register_checkpoint

TAGS = {"policy_name": "advice", "policy_version": "2", "policy_digest": "d1", "agreement": "0.8"}
VERSION = "2026-01-01T00.00.00.000Z"


@pytest.fixture(autouse=True)
def _tracking_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri())
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A whole `save_pretrained` folder, as training leaves it, kept by CheckpointDataset."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "work")
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(["<pad>", *"abcdefg"])}, unk_token="a")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>").save_pretrained(folder / "work")
    dataset = CheckpointDataset(filepath=str(folder / "realigned_model"), version=Version(None, VERSION))
    dataset.save(str(folder / "work"))
    return Path(dataset.load())


def aliases(name):
    return {alias: str(version) for alias, version in client().get_registered_model(name).aliases.items()}


def test_aliases_follow_the_gate(checkpoint):
    first = register_checkpoint(checkpoint, name="gate", tags=TAGS, passed=False)
    assert first["aliases"] == ["candidate"]
    assert aliases("gate") == {"candidate": "1"}
    register_checkpoint(checkpoint, name="gate", tags=TAGS, passed=True)
    assert aliases("gate") == {"candidate": "2", "champion": "2"}
    third = register_checkpoint(checkpoint, name="gate", tags=TAGS, passed=True)
    assert aliases("gate") == {"candidate": "3", "champion": "3", "previous": "2"}
    assert (third["version"], third["uri"]) == ("3", "models:/gate/3")


def test_a_version_knows_its_policy_its_gate_its_run_and_where_it_lies(checkpoint):
    experiment = client().get_experiment_by_name("registry")
    experiment_id = experiment.experiment_id if experiment else client().create_experiment("registry")
    run = client().create_run(experiment_id)
    registered = register_checkpoint(checkpoint, name="tags", tags=TAGS, passed=True, run_id=run.info.run_id)
    version = client().get_model_version("tags", registered["version"])
    assert version.tags == TAGS | {"gate": "passed", "kedro_version": VERSION}
    assert version.source == checkpoint.as_uri() == registered["source"]
    assert version.run_id == run.info.run_id
    (logged,) = client().search_logged_models(
        [experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'"
    )
    assert (logged.name, logged.status) == ("tags", "READY")


def test_no_weights_are_copied(checkpoint):
    register_checkpoint(checkpoint, name="uncopied", tags=TAGS, passed=True)
    assert load_registered("models:/uncopied@champion") == load_registered("models:/uncopied/1") == checkpoint


@pytest.mark.slow
def test_a_fresh_process_loads_the_champion_and_generates(checkpoint):
    register_checkpoint(checkpoint, name="fresh", tags=TAGS, passed=True)
    code = """
import json, mlflow.pyfunc
from transformers import AutoModelForCausalLM, AutoTokenizer
from realignment.tracking.registry import load_registered
path = mlflow.artifacts.download_artifacts("models:/fresh@champion")
model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
tokens = model.generate(**tokenizer("b c d", return_tensors="pt"), max_new_tokens=2, do_sample=False)
pyfunc = mlflow.pyfunc.load_model("models:/fresh@champion").predict(["b c d"])
registered = str(load_registered("models:/fresh@champion"))
print(json.dumps({"path": path, "registered": registered, "tokens": tokens.tolist(), "pyfunc": pyfunc}))
"""
    source = str(Path(__file__).parents[2] / "src")
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert Path(answer["path"]) == Path(answer["registered"]) == checkpoint
    assert len(answer["tokens"][0]) == 5
    assert answer["pyfunc"][0].startswith("b c d")


def test_the_champion_counts_only_under_the_same_policy(checkpoint):
    assert read_champion("nobody", policy_digest="d1") is None
    register_checkpoint(checkpoint, name="champion", tags=TAGS, passed=True)
    assert read_champion("champion", policy_digest="d1") == {"version": "1", "responses": None}
    assert read_champion("champion", policy_digest="d2") is None


def test_the_judged_answers_of_the_champion_come_back_from_the_run_that_registered_it(checkpoint):
    responses = pd.DataFrame(
        {"prompt": ["Why?", "How?"], "after_rules": pd.array([True, None], dtype="boolean")}
    )
    for version in ("1", "2"):
        run = client().create_run(client().create_experiment(f"responses {version}"))
        register_checkpoint(
            checkpoint, name="answered", tags=TAGS, passed=True, responses=responses, run_id=run.info.run_id
        )
        stored = read_champion("answered", policy_digest="d1")
        assert stored["version"] == version
        pd.testing.assert_frame_equal(stored["responses"], responses)


def test_answers_that_the_evaluation_has_logged_are_not_logged_again(checkpoint, tmp_path):
    logged = pd.DataFrame({"prompt": ["Why?"], "after_rules": pd.array([True], dtype="boolean")})
    logged.to_parquet(tmp_path / "responses.parquet")
    run = client().create_run(client().create_experiment("logged responses"))
    client().log_artifact(run.info.run_id, str(tmp_path / "responses.parquet"), "responses")
    register_checkpoint(
        checkpoint, name="logged", tags=TAGS, passed=True, responses=logged.iloc[:0], run_id=run.info.run_id
    )
    pd.testing.assert_frame_equal(read_champion("logged", policy_digest="d1")["responses"], logged)


def test_without_mlflow_nothing_is_registered_and_the_result_says_so(checkpoint, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    registered = register_checkpoint(checkpoint, name="off", tags=TAGS, passed=True)
    assert (registered["version"], registered["uri"], registered["aliases"]) == (None, None, [])
    assert registered["source"] == str(checkpoint)
    assert read_champion("off", policy_digest="d1") is None


@pytest.mark.parametrize("uri", ["models:/nobody@champion", "models:/nobody/7"])
def test_an_unknown_model_is_named_with_the_store_that_was_asked(uri):
    with pytest.raises(RegistryError, match=f"No model {uri} in MLflow at sqlite"):
        load_registered(uri)


def test_a_uri_without_a_version_is_refused():
    with pytest.raises(RegistryError, match="expected models:/NAME@ALIAS or models:/NAME/VERSION"):
        load_registered("models:/realigned")


def test_a_checkpoint_that_is_gone_is_named(checkpoint, tmp_path):
    register_checkpoint(tmp_path / "v1" / "model", name="gone", tags=TAGS, passed=True)
    shutil.rmtree(tmp_path / "v1")
    with pytest.raises(RegistryError, match=r"version 1, kept in .*v1/model, which is not on this machine"):
        load_registered("models:/gone@candidate")


def test_a_registry_that_fails_says_that_the_checkpoint_is_safe(checkpoint, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match="The checkpoint itself is safe"):
        register_checkpoint(
            checkpoint, name="lost", tags=TAGS, passed=True, run_id="r1", tracking_uri="http://127.0.0.1:9"
        )
