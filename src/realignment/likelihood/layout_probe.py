"""Log-probabilities of responses: one forward pass over the rows, and only response tokens are scored."""

import logging
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from realignment.likelihood.attention import windows_handed_over
from realignment.likelihood.backbone import compute_dtype, output_head, scoring_mode
from realignment.likelihood.limits import LikelihoodError, position_limit
from realignment.likelihood.log_probs import response_hidden_states
from realignment.likelihood.packing import Layout, Rows, lay_out
from realignment.likelihood.tiled import token_log_probabilities
from realignment.likelihood.tokenization import TokenizedPair

logger = logging.getLogger(__name__)


HALF_UNITS = 8
"""Units in the last place that a token's log-probability may differ by between two orders of the same sums.
Measured in bfloat16: 3 of SmolLM2-135M's 30 layers; 12 where a hybrid's convolution reads a sibling."""


@torch.no_grad()
def can_share_prompts(model: PreTrainedModel, *, tolerance: float = 1e-3) -> bool:
    """Whether log-probabilities over rows that share prompts are the model's own; measured, not looked up.

    A model whose tokens meet elsewhere than in attention (recurrent, hybrid), or whose attention knows more
    than windows and soft-capping, cannot; its pairs are laid out separately. Nor can one whose attention is
    not told of its window, which may be longer than any probe.

    Args:
        model: Any causal language model.
        tolerance: Of each token's log-probability, relative (absolute below one nat); in half precision at
            least `HALF_UNITS` units in the last place.

    Raises:
        LikelihoodError: The separate layout differs as well: the head is not what `output_head` takes it for.
    """
    tolerance = max(tolerance, HALF_UNITS * torch.finfo(compute_dtype(model)).eps)
    attention, pair = model.config._attn_implementation, _probe(output_head(model).weight.shape[0])
    with scoring_mode(model):
        expected = torch.cat([_alone(model, pair.prompt, response) for response in pair.responses])
        with windows_handed_over() as windows:
            shared = _difference(model, lay_out([pair], pad_id=0).to(model.device), expected, tolerance)
        shared = shared or _unknown_windows(model.config.get_text_config(), windows)
        if not shared:
            return True
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        rows = lay_out([pair], pad_id=0, share_prompts=False).to(model.device)
        separate = _difference(model, rows, expected, tolerance)
    if separate:
        raise LikelihoodError(
            f"{type(model).__name__} gives other log-probabilities by its last hidden states and its head "
            f"than by its own logits: {separate}. Expected a model whose logits are head · hidden state, "
            "such as Llama, Qwen, Gemma, Mistral, GPT-2 or SmolLM."
        )
    logger.warning(
        "%s cannot share a prompt between responses (%s): every response is computed with its own copy of "
        "the prompt, in padded rows. Results are the same; long prompts take longer.",
        type(model).__name__,
        shared,
    )
    return False


def _probe(vocabulary: int) -> TokenizedPair:
    """Longer than a sliding window of a few dozen tokens, so that it is not mistaken for full attention."""
    tokens = (torch.arange(1, 97) * 7 % vocabulary).tolist()
    return TokenizedPair(tokens[:48], (tokens[48:72], tokens[72:]))


def _difference(model: PreTrainedModel, rows: Rows, expected: Tensor, tolerance: float) -> str:
    """What is wrong with the tokens' log-probabilities over these rows; empty: nothing."""
    try:
        hidden = response_hidden_states(model, rows)
        found = token_log_probabilities(hidden, output_head(model), rows.target)
    except Exception as error:  # whatever a foreign forward raises, the answer is: it cannot
        return f"{type(error).__name__}: {error}"
    off = (found - expected).abs()
    if bool((off <= tolerance * expected.abs().clamp(min=1)).all()):  # false where it is not a number
        return ""
    worst = int(off.nan_to_num(nan=torch.inf).argmax())
    return f"a token has {float(found[worst]):.4g} nats, expected {float(expected[worst]):.4g}"


def _unknown_windows(config: Any, handed_over: set[int | None]) -> str:
    """Which of a model's windows its attention was not told of; empty: none."""
    kinds = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    used = getattr(config, "layer_types", None) or ["sliding_attention"]
    windows = {getattr(config, size, None) or None for kind, size in kinds.items() if kind in used}
    unknown = windows - handed_over - {None}
    return f"its attention is not told of its window of {unknown.pop()} tokens" if unknown else ""


def choose_layout(model: PreTrainedModel, *, pad_id: int) -> Layout:
    """The layout in which the model's likelihoods are exact, with shared prompts where it can."""
    return Layout(pad_id, can_share_prompts(model), position_limit(model))


def _alone(model: PreTrainedModel, prompt: list[int], response: list[int]) -> Tensor:
    """Log-probabilities of a response's tokens by the model's own logits, shape (N,)."""
    ids = torch.tensor([prompt + response], device=model.device)
    logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    exact: Tensor = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return exact.gather(1, ids[0, len(prompt) :, None])[:, 0]
