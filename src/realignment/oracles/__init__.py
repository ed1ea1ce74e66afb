"""Oracles judge whether responses comply with a policy: one judgment per exchange, in order."""

from collections.abc import Sequence
from typing import Protocol

from realignment.policy import Policy
from realignment.records import Exchange, Judgment


class Oracle(Protocol):
    """Anything that judges exchanges. Not knowing is ``complies=None`` with the reason, never a guess."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange, in order."""
        ...
