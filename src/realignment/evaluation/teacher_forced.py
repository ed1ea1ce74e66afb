"""What two models think of given responses: log-probabilities of both, and the drift between them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from realignment.likelihood.backbone import output_head
from realignment.likelihood.divergence import ReferenceStates
from realignment.likelihood.log_probs import response_hidden_states, sum_per_response
from realignment.likelihood.packing import Layout, Rows
from realignment.likelihood.tiled import token_likelihoods
from realignment.likelihood.tokenization import TokenizedPair
from realignment.records import Disposition


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
    """Log-probabilities under both models, and KL(reference ‖ model), of every response of every pair.

    Args:
        model: The realigned model.
        reference: M_ref, with the same tokenizer.
        pairs: Tokenised, any number of responses each.
        layout: How the models' pairs are laid out.
        token_budget: Tokens of a batch.
        progress: Label of the progress bar; None: no bar.

    Returns:
        One row per response, in order: pair (index), slot, tokens, logprob, reference_logprob (nats, summed),
        kl (nats per token).
    """
    rows: list[tuple[int, int, int, float, float, float]] = []
    with tqdm(total=len(pairs), desc=progress, unit="pair", disable=progress is None) as bar:
        for members in layout.batches(pairs, budget=token_budget):
            laid_out = layout([pairs[i] for i in members]).to(model.device)
            values = _score(model, reference, laid_out)
            owners = [members[int(i)] for i in laid_out.pair]
            slots = [slot for i in members for slot in range(len(pairs[i].responses))]
            rows += zip(owners, slots, laid_out.length.tolist(), *(v.tolist() for v in values), strict=True)
            bar.update(len(members))
    columns = ["pair", "slot", "tokens", "logprob", "reference_logprob", "kl"]
    return pd.DataFrame(rows, columns=columns).sort_values(["pair", "slot"], ignore_index=True)


def _score(model: Any, reference: Any, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    (hidden, head), (base, base_head) = (
        (response_hidden_states(m, rows), output_head(m)) for m in (model, reference)
    )
    tokens = token_likelihoods(hidden, head, rows.target, ReferenceStates(base, base_head))
    logprobs, references, kl = (sum_per_response(values, rows) for values in tokens)
    return logprobs, references, kl / rows.length


def preference_order(disposition: str, has_correction: bool) -> tuple[str, str] | None:
    """(preferred, dispreferred) under the new policy; None where the pair states no preference."""
    match Disposition(disposition):
        case Disposition.INVERT:
            return "rejected", "chosen"
        case Disposition.PUNISH if has_correction:
            return "correction", "chosen"
        case _:
            return None
