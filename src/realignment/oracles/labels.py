"""The oracle that reads verdicts given with the data: people's labels, or the ground truth of a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

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
