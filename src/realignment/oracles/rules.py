"""The oracle that runs the policy's own rules: deterministic, instant, and only as good as they are."""

from collections.abc import Sequence
from dataclasses import dataclass

from realignment.policy import Policy
from realignment.records import Exchange, Judgment, RealignmentError


class NoRulesError(RealignmentError):
    """The policy has no rule that a machine can check."""


@dataclass(frozen=True)
class RulesOracle:
    """Judges by the rules: a response violates where it breaks any rule whose scope covers it.

    A rule of the kind ``judged`` is one that no machine checks: a response that breaks none of the others is
    then unscored, never taken to comply.
    """

    name: str = "rules"

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange; confidence is 1, since a rule holds or does not.

        Raises:
            NoRulesError: The policy has no rule that a machine can check.
        """
        if not policy.checked_rules:
            raise NoRulesError(
                f"Policy {policy.name} version {policy.version} has no rules for the oracle 'rules' to "
                "check. Add rules to it, or set `judging.oracle: labels` where the data says which responses "
                "comply."
            )
        return [self._judge(exchange, policy) for exchange in exchanges]

    def _judge(self, exchange: Exchange, policy: Policy) -> Judgment:
        broken = policy.broken_rules(exchange)
        unknown = () if broken else policy.open_rules(exchange)
        if unknown:
            reason = f"no machine can check {', '.join(unknown)}: ask an oracle that reads the policy"
            return Judgment(None, 0.0, reason=reason, oracle=self.name)
        reason = f"breaks {', '.join(broken)}" if broken else "keeps every rule"
        return Judgment(not broken, 1.0, rules_broken=broken, reason=reason, oracle=self.name)
