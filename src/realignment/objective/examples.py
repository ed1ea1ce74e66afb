"""Tokenised examples from pairs of text, each with the treatment that its disposition implies."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from transformers import PreTrainedTokenizerBase

from realignment.likelihood.tokenization import TokenizedPair, chat_messages, tokenize_pair
from realignment.objective.hybrid import Example, Treatment
from realignment.records import DataError, Disposition

RESPONSES = {
    Treatment.PREFER: ("rejected", "chosen"),
    Treatment.CORRECT: ("correction", "chosen", "rejected"),
    Treatment.SUPPRESS: ("chosen", "rejected"),
    Treatment.KEEP: ("chosen",),
    Treatment.AFFIRM: ("chosen", "rejected"),
}
"""Columns of a pair's responses, in the order of the treatment."""


def choose_treatment(disposition: str, *, has_correction: bool = False, affirmed: bool = False) -> Treatment:
    """Choose a pair's treatment: INVERT → PREFER; PUNISH → CORRECT or SUPPRESS; RETAIN → KEEP or AFFIRM.

    Args:
        disposition: The pair's.
        has_correction: Whether a PUNISH pair has a verified correction.
        affirmed: Whether a RETAIN pair states a preference that still holds: its rejected response violates.

    Returns:
        The treatment.

    Raises:
        ValueError: The pair is in review.
    """
    match Disposition(disposition):
        case Disposition.INVERT:
            return Treatment.PREFER
        case Disposition.PUNISH:
            return Treatment.CORRECT if has_correction else Treatment.SUPPRESS
        case Disposition.RETAIN:
            return Treatment.AFFIRM if affirmed else Treatment.KEEP
        case Disposition.REVIEW:
            raise ValueError("A pair in review is not trained on until a person has decided.")


def build_examples(
    pairs: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    *,
    use_corrections: bool,
    affirm: bool,
    max_response_tokens: int,
    audited: bool = False,
) -> list[Example]:
    """Build one example per pair, of weight one.

    Args:
        pairs: Triaged pairs.
        tokenizer: The model's own.
        use_corrections: Whether PUNISH pairs with a correction are corrected; else they are suppressed.
        affirm: Whether RETAIN pairs whose rejected response violates keep their preference.
        max_response_tokens: Where a response is cut.
        audited: Whether each pair's own `error_rate` counts in the robust loss.

    Returns:
        The examples, in the order of the pairs.

    Raises:
        DataError: `audited`, and the pairs have no error rates.
    """
    if audited and "error_rate" not in pairs:
        raise DataError(
            "`loss.error_rate: audited` needs an audit of these very splits, by a truth that the oracle did "
            "not judge by, and there is none: run `--pipelines audit`, then `gold` again; or set "
            "`loss.error_rate` to a number."
        )
    examples = []
    for pair in _records(pairs):
        has_correction = use_corrections and isinstance(pair["correction"], str)
        affirmed = affirm and pair.get("rejected_verdict") is False
        treatment = choose_treatment(pair["disposition"], has_correction=has_correction, affirmed=affirmed)
        tokens = _tokenize(tokenizer, pair, RESPONSES[treatment], max_response_tokens)
        examples.append(Example(pair["pair_id"], tokens, treatment, error_rate=_error_rate(pair, audited)))
    return examples


def _error_rate(pair: Mapping[str, Any], audited: bool) -> float | None:
    """ε of the pair; None: not audited, or not known for this pair."""
    rate = pair["error_rate"] if audited else None
    return None if rate is None or pd.isna(rate) else float(rate)


def build_gold_examples(
    gold: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, *, max_response_tokens: int
) -> list[Example]:
    """Build gold pairs as plain preferences: (preferred, dispreferred)."""
    examples = []
    for pair in _records(gold):
        tokens = _tokenize(tokenizer, pair, ("preferred", "dispreferred"), max_response_tokens)
        examples.append(Example(pair["pair_id"], tokens, Treatment.PREFER))
    return examples


def tokenize_columns(
    pairs: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[Sequence[str]],
    *,
    max_response_tokens: int,
) -> list[TokenizedPair]:
    """Tokenise the given response columns of each pair (one sequence of columns per pair)."""
    return [
        _tokenize(tokenizer, pair, names, max_response_tokens)
        for pair, names in zip(_records(pairs), columns, strict=True)
    ]


def _records(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    return iter(table.to_dict("records"))  # type: ignore[arg-type]


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, pair: Mapping[str, Any], columns: Sequence[str], limit: int
) -> TokenizedPair:
    chat = chat_messages(pair["prompt"], pair.get("messages"))
    return tokenize_pair(tokenizer, chat, [pair[column] for column in columns], max_response_tokens=limit)
