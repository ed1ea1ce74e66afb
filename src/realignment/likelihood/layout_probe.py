"""A measurement on load: can responses of this model share a prompt, or must each have its own copy?"""

import logging
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from realignment.likelihood.attention import record_sliding_windows
from realignment.likelihood.backbone import compute_dtype, output_head, scoring_mode
from realignment.likelihood.limits import LikelihoodError, position_limit
from realignment.likelihood.log_probs import response_hidden_states
from realignment.likelihood.packing import Layout, Rows, pack_pairs
from realignment.likelihood.tiled import token_log_probabilities
from realignment.likelihood.tokenization import TokenizedPair

logger = logging.getLogger(__name__)


HALF_UNITS = 8
"""Units in the last place that a token's log-probability may differ by between two orders of the same sums.
Measured in bfloat16: 3 of SmolLM2-135M's 30 layers; 12 where a hybrid's convolution reads a sibling."""


def choose_layout(model: PreTrainedModel, *, pad_id: int) -> Layout:
    """Return the layout in which the model's likelihoods are exact, with shared prompts where it can."""
    return Layout(pad_id, can_share_prompts(model), position_limit(model))


@torch.no_grad()
def can_share_prompts(model: PreTrainedModel, *, tolerance: float = 1e-3) -> bool:
    """Measure whether log-probabilities over rows that share prompts are the model's own.

    A model whose tokens meet elsewhere than in attention (recurrent, hybrid), or whose attention does more
    than windows and soft-capping, cannot share them; its pairs are packed separately. Nor can one whose
    attention is not told of its window, which may be longer than any probe.

    Args:
        model: Any causal language model.
        tolerance: Allowed error of a token's log-probability, relative (absolute below one nat); in half
            precision at least `HALF_UNITS` units in the last place.

    Returns:
        Whether they are; if not, the reason is logged.

    Raises:
        LikelihoodError: The separate layout differs as well: the head is not what `output_head` takes it for.
    """
    tolerance = max(tolerance, HALF_UNITS * torch.finfo(compute_dtype(model)).eps)
    attention = model.config._attn_implementation
    pair = _probe_pair(output_head(model).weight.shape[0])
    with scoring_mode(model):
        # The model's own logits on each response alone, shape (N,), against both layouts.
        plain = [_plain_log_probabilities(model, pair.prompt, response) for response in pair.responses]
        expected = torch.cat(plain)
        with record_sliding_windows() as windows:
            rows = pack_pairs([pair], pad_id=0).to(model.device)
            obstacle = _describe_difference(model, rows, expected, tolerance)
        obstacle = obstacle or _describe_hidden_window(model.config.get_text_config(), windows)
        if not obstacle:
            return True
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        rows = pack_pairs([pair], pad_id=0, share_prompts=False).to(model.device)
        difference = _describe_difference(model, rows, expected, tolerance)
    if difference:
        raise LikelihoodError(
            f"{type(model).__name__} gives other log-probabilities by its last hidden states and its head "
            f"than by its own logits: {difference}. Expected a model whose logits are head · hidden state, "
            "such as Llama, Qwen, Gemma, Mistral, GPT-2 or SmolLM."
        )
    logger.warning(
        "%s cannot share a prompt between responses (%s): every response is computed with its own copy of "
        "the prompt, in padded rows. Results are the same; long prompts take longer.",
        type(model).__name__,
        obstacle,
    )
    return False


def _probe_pair(vocabulary: int) -> TokenizedPair:
    """Longer than a sliding window of a few dozen tokens, so that it is not mistaken for full attention."""
    tokens = (torch.arange(1, 97) * 7 % vocabulary).tolist()
    return TokenizedPair(tokens[:48], (tokens[48:72], tokens[72:]))


def _plain_log_probabilities(model: PreTrainedModel, prompt: list[int], response: list[int]) -> Tensor:
    """Log-probabilities of a response's tokens by the model's own logits, shape (N,)."""
    ids = torch.tensor([prompt + response], device=model.device)
    logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logprobs: Tensor = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0]


def _describe_difference(model: PreTrainedModel, rows: Rows, expected: Tensor, tolerance: float) -> str:
    """Say what is wrong with the tokens' log-probabilities over these rows; empty: nothing."""
    try:
        hidden = response_hidden_states(model, rows)
        logprobs = token_log_probabilities(hidden, output_head(model), rows.target)
    except Exception as error:  # a foreign forward may raise anything: the model cannot be run like this
        return f"{type(error).__name__}: {error}"
    errors = (logprobs - expected).abs()
    if bool((errors <= tolerance * expected.abs().clamp(min=1)).all()):  # false where it is not a number
        return ""
    worst = int(errors.nan_to_num(nan=torch.inf).argmax())
    return f"a token has {float(logprobs[worst]):.4g} nats, expected {float(expected[worst]):.4g}"


def _describe_hidden_window(config: Any, passed: set[int | None]) -> str:
    """Say which of a model's windows was not passed to its attention; empty: none."""
    kinds = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    layer_types = getattr(config, "layer_types", None) or ["sliding_attention"]
    windows = {getattr(config, size, None) or None for kind, size in kinds.items() if kind in layer_types}
    hidden = windows - passed - {None}
    return f"its attention is not told of its window of {hidden.pop()} tokens" if hidden else ""
