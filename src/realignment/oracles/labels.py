"""The oracle that reads verdicts given with the data: people's labels, or the ground truth of a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import pandas as pd

from realignment.intake.flags import verdict_column
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

NO_LABEL = "the data gives no label for this response"

Known = TypeVar("Known", covariant=True)


class ByResponse(Protocol[Known]):
    """What is known of responses, by (prompt, response): a mapping, of which only `get` is asked."""

    def get(self, key: tuple[str, str], /) -> Known | None:
        """None where nothing is known."""


Labels = ByResponse[bool | None]
"""Verdicts."""


@dataclass(frozen=True)
class LabelOracle:
    """Answers with the label of the very same prompt and response; unscored where there is none."""

    labels: Labels
    name: str = "labels"
    rules: ByResponse[tuple[str, ...]] = field(default_factory=dict)
    """Rules and tiers that a response breaks, where the labels say so."""

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange; confidence is 1 where a label is there."""
        return [self._judge(exchange) for exchange in exchanges]

    def _judge(self, exchange: Exchange) -> Judgment:
        label = self.labels.get((exchange.prompt, exchange.response))
        if label is None:
            return Judgment(None, 0.0, reason=NO_LABEL, oracle=self.name)
        broken = self.rules.get((exchange.prompt, exchange.response)) or ()
        return Judgment(label, 1.0, broken, "label given with the data", self.name)


def truth_labels(pairs: pd.DataFrame) -> dict[tuple[str, str], bool | None]:
    """The labels given with the data, by (prompt, response).

    Pairs may share a response: a label given once holds for all; labels that contradict leave it unknown.
    """
    found: dict[tuple[str, str], set[bool]] = {}
    for response in ("chosen", "rejected"):
        column = f"{response}_complies"
        if column in pairs:
            labels = verdict_column(pairs, column)
            for prompt, text, label in zip(pairs["prompt"], pairs[response], labels, strict=True):
                known = found.setdefault((prompt, text), set())
                if not pd.isna(label):
                    known.add(bool(label))
    return {key: next(iter(known)) if len(known) == 1 else None for key, known in found.items()}


def truth_rules(pairs: pd.DataFrame) -> dict[tuple[str, str], tuple[str, ...]]:
    """The rules and tiers that a response breaks by its labels (`severity.grade`), by (prompt, response)."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for response in ("chosen", "rejected"):
        if f"{response}_rules" in pairs:
            for *key, rules in zip(pairs["prompt"], pairs[response], pairs[f"{response}_rules"], strict=True):
                if isinstance(rules, str) and rules:
                    found[key[0], key[1]] = tuple(rules.split(","))
    return found
