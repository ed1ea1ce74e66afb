"""A cheap oracle first, and a stronger one only where the first is unsure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from realignment.oracles.protocol import Oracle
from realignment.policy import Policy
from realignment.records import Exchange, Judgment


@dataclass(frozen=True)
class CascadeOracle:
    """Each oracle judges what those before it left unscored or unsure; the last one decides.

    Attributes:
        oracles: From the cheapest to the best.
        min_confidence: Below this a verdict is unsure, in [0, 1].
        name: Name of the oracle in reports.
        exchange_counts: Exchanges that each oracle has judged so far.
    """

    oracles: tuple[Oracle, ...]
    min_confidence: float
    name: str = "cascade"
    exchange_counts: list[int] = field(default_factory=list, compare=False)

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange, by the oracle that decided it."""
        judgments: list[Judgment | None] = [None] * len(exchanges)
        open_positions = list(range(len(exchanges)))
        self.exchange_counts.extend([0] * (len(self.oracles) - len(self.exchange_counts)))
        for step, oracle in enumerate(self.oracles):
            if not open_positions:
                break
            self.exchange_counts[step] += len(open_positions)
            answers = oracle([exchanges[position] for position in open_positions], policy)
            for position, judgment in zip(open_positions, answers, strict=True):
                judgments[position] = judgment
            open_positions = [p for p in open_positions if self._is_unsure(judgments[p])]
        return [judgment for judgment in judgments if judgment is not None]

    def _is_unsure(self, judgment: Judgment | None) -> bool:
        return judgment is None or judgment.complies is None or judgment.confidence < self.min_confidence
