"""What many tests use: the command line in a second process, and a model that trains at once."""

import os

# No model hub is asked by any test; must be set before the libraries are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DO_NOT_TRACK"] = "1"

import pytest
from base_model import fetch_or_skip
from command_line import kedro_process
from tiny_checkpoints import save_tiny_llama

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def kedro_in_process():
    with kedro_process() as process:
        yield process


@pytest.fixture(scope="session")
def base_model():
    """The folder of the base model that a first run fetches, fetched here if it is not there yet."""
    return fetch_or_skip()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with a random Llama of one layer, whose tokenizer spells English and has a chat template."""
    import torch
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tiny-model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_tiny_llama(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder
