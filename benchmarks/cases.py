"""The cases to measure: random models of known shape, and pairs of random tokens with known lengths."""

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from realignment.likelihood.tokenization import TokenizedPair, chat_messages, tokenize_pair
from realignment.model.adapters import make_trainable
from realignment.parameters import LoraParameters

ROOT = Path(__file__).resolve().parent.parent
REAL_PAIRS = ROOT.parent / "shared/data/pku_safety/pairs.jsonl.gz"
BASE_MODELS = ROOT / "data/01_raw/models"
LONGEST_RESPONSE = 256
END = 2

# Width, width of the MLP, layers, heads, heads of keys and values, vocabulary.
SHAPES = {
    "tiny": (64, 128, 2, 4, 2, 512),
    "t17": (384, 1024, 8, 6, 6, 8192),
    "t17v": (384, 1024, 8, 6, 6, 49152),
    "smol135": (576, 1536, 30, 9, 3, 49152),
    "8b": (4096, 14336, 32, 32, 8, 128256),
}
"""t17: 17 M parameters; t17v: the same with a large vocabulary; smol135: SmolLM2-135M; 8b: Llama-3.1-8B."""

LORA = LoraParameters(rank=32, alpha=16, target_modules=("q_proj", "v_proj"))
"""The adapter of the published code."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Ranges of tokens that prompts and responses are drawn from, both ends included."""

    prompt: tuple[int, int]
    response: tuple[int, int]


LENGTHS = {
    "PKU-like": Lengths(prompt=(30, 70), response=(40, 150)),
    "long prompts": Lengths(prompt=(120, 180), response=(30, 70)),
}


def random_model(
    size: str, *, attention: str, dtype: torch.dtype = torch.float32, device: str = "cpu", **changes: int
) -> LlamaForCausalLM:
    """Build a Llama with random weights, always the same; `changes` are those to its config."""
    width, mlp, layers, heads, groups, vocabulary = SHAPES[size]
    config = LlamaConfig(
        **{
            "hidden_size": width,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "vocab_size": vocabulary,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": size != "8b",
            "initializer_range": 0.02 if size == "8b" else 0.05,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": END,
            "use_cache": False,
        }
        | changes
    )
    config._attn_implementation = attention
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=dtype)
    return model.eval()


def build_trainable_model(size: str, *, lora: bool, **options: Any) -> nn.Module:
    """Build a model to train, at the reference: a new adapter (B = 0) on frozen weights, or all weights."""
    return make_trainable(random_model(size, **options), LORA if lora else None, seed=0).eval()


@torch.no_grad()
def perturb_parameters(model: nn.Module, *, scale: float = 0.01) -> None:
    """Add noise to every trained parameter, the same for equal models, as if in the middle of training."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(scale * noise.to(parameter.device, parameter.dtype))


def random_pairs(count: int, vocabulary: int, lengths: Lengths, *, seed: int) -> list[TokenizedPair]:
    """Draw pairs of random tokens; every response ends with the end-of-turn token."""
    draw = random.Random(seed)
    shapes = [
        (draw.randint(*lengths.prompt), draw.randint(*lengths.response), draw.randint(*lengths.response))
        for _ in range(count)
    ]
    return _fill_with_random_tokens(shapes, vocabulary, draw)


def real_pairs(count: int, vocabulary: int, *, seed: int) -> list[TokenizedPair] | None:
    """Draw pairs of random tokens as long as real ones (PKU-SafeRLHF, in tokens of the base model).

    Returns:
        The pairs; None where the data or a base model is not there.
    """
    tokenizers = sorted(BASE_MODELS.glob("*/tokenizer.json"))
    if not REAL_PAIRS.is_file() or not tokenizers:
        return None
    tokenizer = AutoTokenizer.from_pretrained(tokenizers[0].parent)
    with gzip.open(REAL_PAIRS, "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    draw = random.Random(seed)
    shapes = []
    for pair in draw.sample(pairs, count):
        responses = [pair["chosen"], pair["rejected"]]
        tokens = tokenize_pair(
            tokenizer, chat_messages(pair["prompt"]), responses, max_response_tokens=LONGEST_RESPONSE
        )
        shapes.append((len(tokens.prompt), *map(len, tokens.responses)))
    return _fill_with_random_tokens(shapes, vocabulary, draw)


def _fill_with_random_tokens(
    shapes: Sequence[tuple[int, int, int]], vocabulary: int, draw: random.Random
) -> list[TokenizedPair]:
    def tokens(count: int) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(count)]

    return [
        TokenizedPair(tokens(prompt), ([*tokens(first - 1), END], [*tokens(second - 1), END]))
        for prompt, first, second in shapes
    ]
