"""Oracles judge whether responses comply with a policy: one judgment per exchange, in order."""

from realignment.chat_client.usage import Usage
from realignment.oracles.protocol import CostlyOracle, Judgments, Oracle, judge_in_order
from realignment.records import OracleError

__all__ = ["CostlyOracle", "Judgments", "Oracle", "OracleError", "Usage", "judge_in_order"]
