"""Tokenised examples from pairs of text, each with the treatment that its disposition implies."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import pandas as pd
from transformers import PreTrainedTokenizerBase

from realignment.likelihood.tokenization import TokenizedPair, chat_messages, tokenize_pair
from realignment.objective.hybrid import Example, Treatment
from realignment.records import DataError, Disposition


class PairKind(StrEnum):
    """What a pair is to a method: its disposition, and what of it training can use."""

    INVERT = "invert"
    PUNISH_CORRECTED = "punish_corrected"
    """PUNISH with a verified correction."""
    PUNISH = "punish"
    """PUNISH without one."""
    RETAIN_DECIDED = "retain_decided"
    """RETAIN whose rejected response violates: its preference still holds."""
    RETAIN = "retain"
    """RETAIN whose both responses comply: its preference is the old policy's alone."""


class Plan(NamedTuple):
    """What becomes of a kind of pair: its treatment, and the columns of the responses, in its order."""

    treatment: Treatment
    columns: tuple[str, ...]


Plans = Mapping[PairKind, Plan | None]
"""The plan of every kind of pair; None leaves the kind out of training."""

TRACE: Plans = {
    PairKind.INVERT: Plan(Treatment.PREFER, ("rejected", "chosen")),
    PairKind.PUNISH_CORRECTED: Plan(Treatment.CORRECT, ("correction", "chosen", "rejected")),
    PairKind.PUNISH: Plan(Treatment.SUPPRESS, ("chosen", "rejected")),
    PairKind.RETAIN_DECIDED: Plan(Treatment.KEEP, ("chosen",)),
    PairKind.RETAIN: Plan(Treatment.KEEP, ("chosen",)),
}
"""TRACE's plans (arXiv:2511.02623, section 4), with corrections where there are some."""

AFFIRM = Plan(Treatment.AFFIRM, ("chosen", "rejected"))
"""The plan of RETAIN pairs whose preference is trained on too."""


def plan_trace(*, use_corrections: bool, affirm: bool) -> Plans:
    """Return TRACE's plans with our two options.

    Args:
        use_corrections: Whether PUNISH pairs with a correction are corrected; else they are suppressed.
        affirm: Whether RETAIN pairs whose rejected response violates keep their preference.

    Returns:
        The plan of every kind.
    """
    changes: dict[PairKind, Plan | None] = {}
    if not use_corrections:
        changes[PairKind.PUNISH_CORRECTED] = TRACE[PairKind.PUNISH]
    if affirm:
        changes[PairKind.RETAIN_DECIDED] = AFFIRM
    return {**TRACE, **changes}


def classify_pair(pair: Mapping[str, Any]) -> PairKind:
    """Return the kind of a triaged pair.

    Args:
        pair: Its disposition, correction, and `rejected_verdict` where that is known.

    Returns:
        The kind.

    Raises:
        ValueError: The pair is in review.
    """
    match Disposition(pair["disposition"]):
        case Disposition.INVERT:
            return PairKind.INVERT
        case Disposition.PUNISH:
            has_correction = isinstance(pair.get("correction"), str)
            return PairKind.PUNISH_CORRECTED if has_correction else PairKind.PUNISH
        case Disposition.RETAIN:
            is_decided = pair.get("rejected_verdict") is False
            return PairKind.RETAIN_DECIDED if is_decided else PairKind.RETAIN
        case Disposition.REVIEW:
            raise ValueError("A pair in review is not trained on until a person has decided.")


def build_examples(
    pairs: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    plans: Plans = TRACE,
    *,
    max_response_tokens: int,
    max_tokens: int | None = None,
    audited: bool = False,
) -> list[Example]:
    """Build one example, of weight one, per pair that the method trains on.

    Args:
        pairs: Triaged pairs.
        tokenizer: The model's own.
        plans: What becomes of each kind of pair.
        max_response_tokens: Where a response is cut.
        max_tokens: Where prompt and response together are cut; None: the response's limit alone.
        audited: Whether each pair's own `error_rate` counts in the robust loss.

    Returns:
        The examples, in the order of the pairs.

    Raises:
        DataError: `audited`, and the pairs have no error rates; or a plan names a response that a pair lacks.
    """
    if audited and "error_rate" not in pairs:
        raise DataError(
            "`loss.error_rate: audited` needs an audit of these very splits, by a truth that the oracle did "
            "not judge by, and there is none: run `--pipelines audit`, then `gold` again; or set "
            "`loss.error_rate` to a number."
        )
    examples = []
    for pair in _records(pairs):
        plan = plans[classify_pair(pair)]
        if plan is None:
            continue
        missing = [column for column in plan.columns if not isinstance(pair.get(column), str)]
        if missing:
            raise DataError(
                f"The method trains on the {missing[0]} of pair {pair['pair_id']}, and it has none. Only "
                f"`{PairKind.PUNISH_CORRECTED}` pairs are sure to have a correction: change `loss.plans`."
            )
        tokens = _tokenize(tokenizer, pair, plan.columns, max_response_tokens, max_tokens)
        rate = _error_rate(pair, audited)
        example = Example(pair["pair_id"], tokens, plan.treatment, error_rate=rate, columns=plan.columns)
        examples.append(example)
    return examples


def _error_rate(pair: Mapping[str, Any], audited: bool) -> float | None:
    """ε of the pair; None: not audited, or not known for this pair."""
    rate = pair["error_rate"] if audited else None
    return None if rate is None or pd.isna(rate) else float(rate)


def build_gold_examples(
    gold: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_response_tokens: int,
    max_tokens: int | None = None,
) -> list[Example]:
    """Build gold pairs as plain preferences: (preferred, dispreferred)."""
    examples = []
    for pair in _records(gold):
        columns = ("preferred", "dispreferred")
        tokens = _tokenize(tokenizer, pair, columns, max_response_tokens, max_tokens)
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
    tokenizer: PreTrainedTokenizerBase,
    pair: Mapping[str, Any],
    columns: Sequence[str],
    limit: int,
    max_tokens: int | None = None,
) -> TokenizedPair:
    chat = chat_messages(pair["prompt"], pair.get("messages"))
    responses = [pair[column] for column in columns]
    return tokenize_pair(tokenizer, chat, responses, max_response_tokens=limit, max_tokens=max_tokens)
