"""The oracle of labels in the data: people's labels, or the ground truth of a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import pandas as pd

from realignment.intake.flags import read_verdict_column
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

NO_LABEL = "the data gives no label for this response"

Value = TypeVar("Value", covariant=True)


class ResponseLookup(Protocol[Value]):
    """A lookup of values by (prompt, response): any mapping, of which only `get` is called."""

    def get(self, key: tuple[str, str], /) -> Value | None:
        """Return the value of a prompt and response; None where there is none."""


Labels = ResponseLookup[bool | None]
"""Whether responses comply; None where the labels do not say."""


@dataclass(frozen=True)
class LabelOracle:
    """Answers with the label of the very same prompt and response; unscored where there is none."""

    labels: Labels
    name: str = "labels"
    rules: ResponseLookup[tuple[str, ...]] = field(default_factory=dict)
    """Rules and tiers that a response breaks, where the labels say so."""

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange; confidence is 1 where there is a label."""
        return [self._judge(exchange) for exchange in exchanges]

    def _judge(self, exchange: Exchange) -> Judgment:
        label = self.labels.get((exchange.prompt, exchange.response))
        if label is None:
            return Judgment(None, 0.0, reason=NO_LABEL, oracle=self.name)
        broken = self.rules.get((exchange.prompt, exchange.response)) or ()
        return Judgment(label, 1.0, broken, "label given with the data", self.name)


def read_truth_labels(pairs: pd.DataFrame) -> dict[tuple[str, str], bool | None]:
    """Return the labels in the data, by (prompt, response).

    Pairs may share a response: a label of one holds for all; labels that contradict leave it unknown.

    Args:
        pairs: Pairs with columns of `records.TRUTH_COLUMNS`.

    Returns:
        Whether each labelled response complies; None where it has no label, or contradicting ones.
    """
    labels_by_response: dict[tuple[str, str], set[bool]] = {}
    for response in ("chosen", "rejected"):
        column = f"{response}_complies"
        if column in pairs:
            labels = read_verdict_column(pairs, column)
            for prompt, text, label in zip(pairs["prompt"], pairs[response], labels, strict=True):
                response_labels = labels_by_response.setdefault((prompt, text), set())
                if not pd.isna(label):
                    response_labels.add(bool(label))
    return {key: next(iter(s)) if len(s) == 1 else None for key, s in labels_by_response.items()}


def read_truth_rules(pairs: pd.DataFrame) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the rules and tiers that responses break by their labels, by (prompt, response).

    Args:
        pairs: Pairs with the columns chosen_rules and rejected_rules, from `severity.grade_pairs`.

    Returns:
        Ids of rules and tiers; only of responses that break some.
    """
    broken: dict[tuple[str, str], tuple[str, ...]] = {}
    for response in ("chosen", "rejected"):
        if f"{response}_rules" in pairs:
            cells = pairs[f"{response}_rules"]
            for prompt, text, cell in zip(pairs["prompt"], pairs[response], cells, strict=True):
                if isinstance(cell, str) and cell:
                    broken[prompt, text] = tuple(cell.split(","))
    return broken
