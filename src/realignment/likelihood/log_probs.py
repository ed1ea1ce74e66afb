"""Log-probabilities of responses: one forward pass over the rows, and only response tokens are scored."""

from typing import Any

import torch
from torch import Tensor

from realignment.likelihood.attention import SHARED_PROMPTS
from realignment.likelihood.backbone import backbone, causal_model, output_head
from realignment.likelihood.packing import Rows
from realignment.likelihood.tiled import token_log_probabilities


def response_hidden_states(model: Any, rows: Rows) -> Tensor:
    """Run the model over the rows and return the states that predict response tokens, shape (N, d)."""
    causal = causal_model(model)
    options: dict[str, Any] = {"attention_mask": rows.is_token}
    if rows.shares_prompts:
        if causal.config._attn_implementation != SHARED_PROMPTS:
            # Stays on: it is plain attention for every other caller, and checkpointed layers run again later.
            causal.set_attn_implementation(SHARED_PROMPTS)
        # transformers takes a mask of four dimensions as ready for use and builds none. Ours is never read: a
        # model that reads it all the same gets NaN, which cannot pass for a result.
        unread = torch.full((1, 1, 1, 1), float("nan"), device=rows.input_ids.device)
        options = {"attention_mask": unread, "position_ids": rows.position_ids, "prompt_sharing": rows}
    output = backbone(model)(input_ids=rows.input_ids, use_cache=False, **options)
    states: Tensor = output.last_hidden_state  # (B, L, d)
    return states.flatten(0, 1).index_select(0, rows.source)


def sum_per_response(values: Tensor, rows: Rows) -> Tensor:
    """Add up token values (N,) per response, shape (R,), in float64 where the device has it.

    Hundreds of float32 numbers added one after another lose more than a whole training step may differ by.
    """
    exact = values if values.device.type == "mps" else values.double()
    total = exact.new_zeros(len(rows.length)).index_add(0, rows.response, exact)
    return total.to(values.dtype)


def response_log_probabilities(model: Any, rows: Rows) -> Tensor:
    """Compute log π(y|x) of each response in nats, shape (R,): the sum over its tokens incl. end-of-turn."""
    hidden = response_hidden_states(model, rows)
    tokens = token_log_probabilities(hidden, output_head(model), rows.target)
    return sum_per_response(tokens, rows)
