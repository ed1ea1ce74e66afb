"""Random models of one layer, ready for chat: what a test of answers and likelihoods needs."""

from pathlib import Path

import torch
from tiny_checkpoints import save_tiny_llama

from realignment.model import loading
from realignment.parameters.base import ModelParameters

PARAMETERS = ModelParameters(source="unused", folder="unused", dtype="float32", device="cpu")


def save_model(folder: Path, *, seed: int, scale: float = 0.5) -> str:
    """A checkpoint with normal weights of the given scale: far from uniform, so that answers differ."""
    save_tiny_llama(folder)
    model, tokenizer = loading.load_model(folder, dtype="float32", device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def load_model(folder: str):
    """In float64, so that sums of the same terms in another order are equal to ten digits."""
    model, tokenizer = loading.load_model(folder, dtype="float64", device="cpu")
    return model.eval(), tokenizer
