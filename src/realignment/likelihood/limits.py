"""What cannot be laid out: sequences without tokens, and longer ones than a model has positions for."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from realignment.likelihood.tokenization import TokenizedPair
from realignment.records import RealignmentError

logger = logging.getLogger(__name__)

OFFSET = 2
"""Rows of an embedding of positions that stand for none, at most (OPT's)."""


class LikelihoodError(RealignmentError):
    """Likelihoods cannot be computed exactly."""


@dataclass(frozen=True, slots=True)
class PositionLimit:
    """How long a sequence of prompt and response may be.

    Attributes:
        tokens: The longest sequence.
        reason: Why not longer; empty: the model was trained no longer and can be run all the same.
    """

    tokens: int
    reason: str = ""

    def check(self, pairs: Sequence[TokenizedPair]) -> None:
        """Refuse pairs beyond the limit, or warn once where they can be computed.

        Raises:
            LikelihoodError: A pair is longer than can be computed exactly.
        """
        lengths = [len(pair.prompt) + max(map(len, pair.responses), default=0) for pair in pairs]
        longest = max(lengths, default=0)
        if longest <= self.tokens:
            return
        if not self.reason:
            _warn(self.tokens)
            return
        longer = sum(length > self.tokens for length in lengths)
        raise LikelihoodError(
            f"Pair {lengths.index(longest)} has a prompt and a response of {longest} tokens together, "
            f"expected at most {self.tokens}: {self.reason}. Drop the {longer} of {len(pairs)} pairs that "
            "are longer, or cut responses sooner (`training.max_response_tokens`)."
        )


@cache
def _warn(limit: int) -> None:
    logger.warning(
        "Some prompts and responses have more than the %d tokens together on which the model was trained "
        "(`max_position_embeddings`). They are computed, but what it says there may mean little.",
        limit,
    )


def position_limit(model: PreTrainedModel) -> PositionLimit | None:
    """The limit of a model's positions; None: it names none."""
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    switches = {"longrope": "original_max_position_embeddings", "dynamic": "max_position_embeddings"}
    for kind in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        name = str(kind.get("rope_type"))
        if name in switches and (tokens := kind.get(switches[name], limit)) is not None:
            reason = f"beyond, its {name} frequencies change for all sequences of a pass"
            return PositionLimit(int(tokens), reason)
    if limit is None:
        return None
    return PositionLimit(
        int(limit), "the model has a learned embedding for each" if _learns(model, limit) else ""
    )


def _learns(model: Any, limit: int) -> bool:
    words = model.get_input_embeddings()
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m is not words]
    return any(0 <= table.num_embeddings - limit <= OFFSET for table in tables)


def check_tokens(index: int, pair: TokenizedPair) -> None:
    """Refuse a pair without a prompt or a response.

    Raises:
        LikelihoodError: One has no token.
    """
    empty = [f"response {slot}" for slot, response in enumerate(pair.responses) if not response]
    if pair.prompt and pair.responses and not empty:
        return
    found = "prompt" if not pair.prompt else ", ".join(empty) or "list of responses"
    raise LikelihoodError(
        f"Pair {index} has an empty {found}: expected at least one token, for a response is predicted from "
        "its prompt and ends with the end-of-turn token. Drop the pair."
    )
