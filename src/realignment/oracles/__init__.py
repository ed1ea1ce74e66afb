"""Oracles judge whether responses comply with a policy: one judgment per exchange, in order."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from realignment.policy import Policy
from realignment.records import Exchange, Judgment, RealignmentError

Judgments = Generator[tuple[int, Judgment], None, None]
"""Positions and judgments of exchanges, as they come; closed early, the oracle stops asking."""


class OracleError(RealignmentError):
    """The oracle cannot judge at all: nothing is lost, and the next run continues."""


class Oracle(Protocol):
    """Anything that judges exchanges. Not knowing is ``complies=None`` with the reason, never a guess."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange, in order."""
        ...


@runtime_checkable
class CostlyOracle(Oracle, Protocol):
    """An oracle whose verdicts are worth keeping: it gives each as soon as it has it, and says who it is."""

    @property
    def identity(self) -> str:
        """All that its verdicts depend on besides exchange and policy: model, template, settings."""
        ...

    @property
    def usage(self) -> "Usage":
        """What it has cost so far."""
        ...

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Position and judgment of every exchange, once each, in any order."""
        ...


@dataclass
class Usage:
    """What an oracle has cost: grows as it judges.

    Attributes:
        asked: Exchanges judged, without those that the verdict store answered.
        stored: Exchanges that the verdict store answered.
        requests: Sent to a server, repeated ones included.
        prompt_tokens: Read by the model.
        completion_tokens: Written by the model.
        cost: In the currency of the prices that the parameters give.
    """

    asked: int = 0
    stored: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


def in_order(oracle: CostlyOracle, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
    """The judgments of `oracle.stream` in the order of the exchanges."""
    judgments = dict(oracle.stream(exchanges, policy))
    return [judgments[position] for position in range(len(exchanges))]
