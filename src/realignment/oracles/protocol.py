"""Oracles judge whether responses comply with a policy: one judgment per exchange, in order."""

from collections.abc import Generator, Sequence
from typing import Protocol, runtime_checkable

from realignment.chat_client.usage import Usage
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

Judgments = Generator[tuple[int, Judgment], None, None]
"""Positions and judgments of exchanges, as they come; closing it early stops the oracle."""


class Oracle(Protocol):
    """Judges exchanges. Not knowing is ``complies=None`` with the reason, never a guess."""

    @property
    def name(self) -> str:
        """Name of the oracle in reports."""
        ...

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange, in order."""
        ...


@runtime_checkable
class CostlyOracle(Oracle, Protocol):
    """An oracle whose verdicts are worth storing: it streams them, and has an identity to store them by."""

    @property
    def identity(self) -> str:
        """All that verdicts depend on besides exchange and policy: model, template, settings."""
        ...

    @property
    def usage(self) -> "Usage":
        """What the oracle has cost so far."""
        ...

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Yield position and judgment of every exchange, once each, in any order."""
        ...


def judge_in_order(oracle: CostlyOracle, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
    """Return the judgments of `oracle.stream` in the order of the exchanges."""
    judgments = dict(oracle.stream(exchanges, policy))
    return [judgments[position] for position in range(len(exchanges))]
