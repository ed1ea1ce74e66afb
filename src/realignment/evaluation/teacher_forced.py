"""What two models think of given responses: log-probabilities of both, and the drift between them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from realignment import likelihood
from realignment.losses import token_kl
from realignment.records import Disposition
from realignment.rows import Rows, batches_by_tokens, lay_out
from realignment.tokenization import TokenizedPair


@torch.inference_mode()
def score_pairs(
    model: Any,
    reference: Any,
    pairs: Sequence[TokenizedPair],
    *,
    pad_id: int,
    token_budget: int,
    progress: str | None,
) -> pd.DataFrame:
    """Log-probabilities under both models, and KL(reference ‖ model), of every response of every pair.

    Args:
        model: The realigned model.
        reference: M_ref, with the same tokenizer.
        pairs: Tokenised, any number of responses each.
        pad_id: Fills rows.
        token_budget: Padded tokens of a batch.
        progress: Label of the progress bar; None: no bar.

    Returns:
        One row per response, in order: pair (index), slot, tokens, logprob, reference_logprob (nats, summed),
        kl (nats per token).
    """
    rows: list[tuple[int, int, int, float, float, float]] = []
    with tqdm(total=len(pairs), desc=progress, unit="pair", disable=progress is None) as bar:
        for members in batches_by_tokens([len(pair) for pair in pairs], budget=token_budget):
            layout = lay_out([pairs[i] for i in members], pad_id=pad_id, dtype=model.dtype).to(model.device)
            values = _score(model, reference, layout)
            owners = [members[int(i)] for i in layout.pair]
            slots = [slot for i in members for slot in range(len(pairs[i].responses))]
            rows += zip(owners, slots, layout.length.tolist(), *(v.tolist() for v in values), strict=True)
            bar.update(len(members))
    columns = ["pair", "slot", "tokens", "logprob", "reference_logprob", "kl"]
    return pd.DataFrame(rows, columns=columns).sort_values(["pair", "slot"], ignore_index=True)


def _score(model: Any, reference: Any, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    hidden, base = (likelihood.response_hidden_states(m, rows) for m in (model, reference))
    heads = [likelihood.output_head(m) for m in (model, reference)]
    logprobs, references = (
        likelihood.sum_per_response(likelihood.token_log_probabilities(h, head, rows.target), rows)
        for h, head in zip((hidden, base), heads, strict=True)
    )
    kl = torch.stack(
        [
            token_kl(
                hidden[mine],
                heads[0],
                base[mine],
                heads[1],
                hidden.new_full((int(mine.sum()),), 1 / int(mine.sum())),
            )
            for mine in (rows.response == r for r in range(len(rows.length)))
        ]
    )
    return logprobs, references, kl


def preference_order(disposition: str, has_correction: bool) -> tuple[str, str] | None:
    """(preferred, dispreferred) under the new policy; None where the pair states no preference."""
    match Disposition(disposition):
        case Disposition.INVERT:
            return "rejected", "chosen"
        case Disposition.PUNISH if has_correction:
            return "correction", "chosen"
        case _:
            return None
