"""Several oracles, or several samples of one, decide by majority."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from realignment.oracles.protocol import Oracle
from realignment.policy import Policy
from realignment.records import Exchange, Judgment


@dataclass(frozen=True)
class VoteOracle:
    """Gives the verdict of the majority; its share of the votes is the confidence.

    An oracle that has no verdict abstains, and still counts as a vote: two of three that agree are 0.67.

    Attributes:
        oracles: The voters, one vote each.
        min_agreement: Up to this share of the votes there is no verdict; at 0.5 a tie has none.
        name: Name of the oracle in reports.
    """

    oracles: tuple[Oracle, ...]
    min_agreement: float = 0.5
    name: str = "vote"

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange; its broken rules are those that a voter of the majority named."""
        votes = [oracle(exchanges, policy) for oracle in self.oracles]
        return [self._decide(ballot) for ballot in zip(*votes, strict=True)]

    def _decide(self, ballot: tuple[Judgment, ...]) -> Judgment:
        counts = Counter(vote.complies for vote in ballot)
        complies = counts[True] > counts[False]
        agreement = counts[complies] / len(ballot)
        tally = f"{counts[True]} complies, {counts[False]} violates, {counts[None]} unscored"
        fault = any(vote.fault for vote in ballot)
        if counts[True] == counts[False] or agreement <= self.min_agreement:
            return Judgment(None, 0.0, reason=f"no majority: {tally}", oracle=self.name, fault=fault)
        majority = [vote for vote in ballot if vote.complies is complies]
        broken = dict.fromkeys(rule for vote in majority for rule in vote.rules_broken)
        reason = f"{tally}; {majority[0].reason}"
        return Judgment(complies, agreement, tuple(broken), reason, self.name)
