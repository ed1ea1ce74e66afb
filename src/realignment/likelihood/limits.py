"""What cannot be packed: sequences without tokens, and longer ones than a model has positions for."""

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

MAX_RESERVED_POSITIONS = 2
"""Most rows of an embedding of positions that stand for no position (OPT's)."""


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
        widths = [pair.width for pair in pairs]
        longest = max(widths, default=0)
        if longest <= self.tokens:
            return
        if not self.reason:
            _warn_once(self.tokens)
            return
        longer = sum(width > self.tokens for width in widths)
        raise LikelihoodError(
            f"Pair {widths.index(longest)} has a prompt and a response of {longest} tokens together, "
            f"expected at most {self.tokens}: {self.reason}. Drop the {longer} of {len(pairs)} pairs that "
            "are longer, or cut responses sooner (`training.max_response_tokens`)."
        )


@cache
def _warn_once(limit: int) -> None:
    logger.warning(
        "Some prompts and responses have more than the %d tokens together on which the model was trained "
        "(`max_position_embeddings`). They are computed, but their likelihoods may mean little.",
        limit,
    )


def position_limit(model: PreTrainedModel) -> PositionLimit | None:
    """Return how long the model lets a sequence be; None: its configuration names no limit."""
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    # These kinds of rotary positions switch to other frequencies once a pass has a longer sequence.
    switches = {"longrope": "original_max_position_embeddings", "dynamic": "max_position_embeddings"}
    # Where layers differ in their frequencies, `rope_parameters` has one dict for each kind of layer.
    nested = [value for value in rope.values() if isinstance(value, dict)]
    for parameters in (rope, *nested):
        kind = str(parameters.get("rope_type"))
        tokens = parameters.get(switches[kind], limit) if kind in switches else None
        if tokens is not None:
            reason = f"beyond, its {kind} frequencies change for all sequences of a pass"
            return PositionLimit(int(tokens), reason)
    if limit is None:
        return None
    is_learned = _has_learned_positions(model, limit)
    return PositionLimit(int(limit), "the model has a learned embedding for each" if is_learned else "")


def _has_learned_positions(model: Any, limit: int) -> bool:
    """Whether an embedding other than that of words has about as many rows as there are positions."""
    words = model.get_input_embeddings()
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m is not words]
    return any(0 <= table.num_embeddings - limit <= MAX_RESERVED_POSITIONS for table in tables)


def check_tokens(index: int, pair: TokenizedPair) -> None:
    """Refuse a pair without a prompt or a response.

    Args:
        index: The pair's, for the message.
        pair: Prompt and responses.

    Raises:
        LikelihoodError: One has no token.
    """
    empty = [f"response {slot}" for slot, response in enumerate(pair.responses) if not response]
    if pair.prompt and pair.responses and not empty:
        return
    missing = "prompt" if not pair.prompt else ", ".join(empty) or "list of responses"
    raise LikelihoodError(
        f"Pair {index} has an empty {missing}: expected at least one token, for a response is predicted from "
        "its prompt and ends with the end-of-turn token. Drop the pair."
    )
