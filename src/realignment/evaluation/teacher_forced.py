"""Score given responses by teacher forcing: log-probabilities of two models, and the drift between them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from realignment.likelihood.backbone import output_head
from realignment.likelihood.divergence import ReferenceStates
from realignment.likelihood.layout_probe import choose_layout
from realignment.likelihood.log_probs import response_hidden_states, sum_per_response
from realignment.likelihood.packing import Layout, Rows
from realignment.likelihood.tiled import token_likelihoods
from realignment.likelihood.tokenization import TokenizedPair
from realignment.model.loading import load_configured_model
from realignment.objective.examples import tokenize_columns
from realignment.parameters.base import ModelParameters
from realignment.records import Disposition


def score_responses(
    pairs: pd.DataFrame,
    columns: Sequence[Sequence[str]],
    paths: tuple[str, str],
    model_parameters: ModelParameters,
    *,
    max_response_tokens: int,
    token_budget: int,
    progress: str | None,
) -> pd.DataFrame:
    """Load two models, and score responses of every pair under both.

    Args:
        pairs: Cleaned pairs.
        columns: Names of the columns of each pair's responses.
        paths: Folders of the reference and of the other model, with the same tokenizer.
        model_parameters: How the models are loaded.
        max_response_tokens: Length at which responses are truncated.
        token_budget: Tokens of a batch.
        progress: Label of the progress bar; None: no bar.

    Returns:
        One row per response, in order: pair (position), pair_id, prompt, response (name of the column),
        tokens, logprob, reference_logprob (nats, summed), kl (nats per token).
    """
    reference, tokenizer = load_configured_model(paths[0], model_parameters)
    model, _ = load_configured_model(paths[1], model_parameters)
    tokens = tokenize_columns(pairs, tokenizer, columns, max_response_tokens=max_response_tokens)
    layout = choose_layout(model, pad_id=int(tokenizer.pad_token_id))
    scores = score_pairs(
        model, reference, tokens, layout=layout, token_budget=token_budget, progress=progress
    )
    pair_ids = pairs["pair_id"].tolist()
    prompts = pairs["prompt"].tolist()
    return pd.DataFrame(
        {
            "pair": scores["pair"],
            "pair_id": [pair_ids[pair] for pair in scores["pair"]],
            "prompt": [prompts[pair] for pair in scores["pair"]],
            # The position of a response is its slot in `score_pairs`.
            "response": [
                columns[pair][slot] for pair, slot in zip(scores["pair"], scores["slot"], strict=True)
            ],
            **{name: scores[name] for name in ("tokens", "logprob", "reference_logprob", "kl")},
        }
    )


@torch.inference_mode()
def score_pairs(
    model: Any,
    reference: Any,
    pairs: Sequence[TokenizedPair],
    *,
    layout: Layout,
    token_budget: int,
    progress: str | None,
) -> pd.DataFrame:
    """Score every response of every pair: log-probabilities under both models, and KL(reference ‖ model).

    Args:
        model: The realigned model.
        reference: M_ref, with the same tokenizer.
        pairs: Tokenised pairs, any number of responses each.
        layout: How the models' pairs are laid out.
        token_budget: Tokens of a batch.
        progress: Label of the progress bar; None: no bar.

    Returns:
        One row per response, in order: pair (index), slot, tokens, logprob, reference_logprob (nats, summed),
        kl (nats per token).
    """
    rows: list[tuple[int, int, int, float, float, float]] = []
    with tqdm(total=len(pairs), desc=progress, unit="pair", disable=progress is None) as bar:
        for members, batch in layout.pack_batches(pairs, budget=token_budget, device=model.device):
            logprobs, reference_logprobs, kl = _score_batch(model, reference, batch)
            # `batch.pair` counts within the batch; `members` says which pair of all that is.
            pair_indices = [members[int(position)] for position in batch.pair]
            slots: list[int] = []
            for index in members:
                slots += range(len(pairs[index].responses))
            rows += zip(
                pair_indices,
                slots,
                batch.length.tolist(),
                logprobs.tolist(),
                reference_logprobs.tolist(),
                kl.tolist(),
                strict=True,
            )
            bar.update(len(members))
    # Batches are formed by length, so their order is not that of the pairs.
    columns = ["pair", "slot", "tokens", "logprob", "reference_logprob", "kl"]
    return pd.DataFrame(rows, columns=columns).sort_values(["pair", "slot"], ignore_index=True)


def _score_batch(model: Any, reference: Any, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of R responses under model and reference, KL per token; nats, shape (R,) each."""
    # Hidden states at the response tokens alone: logits of other positions are never computed.
    hidden = response_hidden_states(model, rows)
    head = output_head(model)
    base = ReferenceStates(response_hidden_states(reference, rows), output_head(reference))
    # One pass over the vocabulary for all three quantities, each of shape (response tokens,).
    tokens = token_likelihoods(hidden, head, rows.target, base)
    logprobs, reference_logprobs, kl = (sum_per_response(values, rows) for values in tokens)
    return logprobs, reference_logprobs, kl / rows.length


def preference_order(disposition: str, has_correction: bool) -> tuple[str, str] | None:
    """Return (preferred, dispreferred) under the new policy; None where the pair states no preference."""
    match Disposition(disposition):
        case Disposition.INVERT:
            return "rejected", "chosen"
        case Disposition.PUNISH if has_correction:
            return "correction", "chosen"
        case _:
            return None
