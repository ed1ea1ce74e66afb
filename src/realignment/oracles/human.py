"""The oracle of people's verdicts: the majority of those who judged the very same response."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from realignment.intake.flags import read_verdict_column
from realignment.intake.readers import read_table
from realignment.policy import Policy
from realignment.records import DataError, Exchange, Judgment
from realignment.tracking.versions import find_newest_version

logger = logging.getLogger(__name__)

NOT_JUDGED = "no person has judged this response"
REQUIRED = ("prompt", "response", "complies", "policy")


@dataclass(frozen=True, slots=True)
class Opinion:
    """One person's verdict; `complies` is None where they were unsure."""

    complies: bool | None
    rules_broken: tuple[str, ...] = ()
    annotator: str = ""


@dataclass(frozen=True)
class HumanOracle:
    """Gives the verdict of the majority of annotators; a tie, and what nobody has judged, is unscored.

    Confidence is the majority's share of those who gave a verdict.
    """

    opinions: Mapping[str, Mapping[tuple[str, str], tuple[Opinion, ...]]]
    """Policy (name-version) → prompt and response → what people said."""
    digests: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Policy → the digests of its text that people read, as far as they are known."""
    name: str = "human"

    @classmethod
    def from_table(cls, verdicts: pd.DataFrame) -> "HumanOracle":
        """Return the oracle of imported verdicts.

        Args:
            verdicts: A table with the columns of `review.verdicts.VERDICT_COLUMNS`.

        Returns:
            The oracle of all policies in the table.

        Raises:
            DataError: There are none, or one is no verdict.
        """
        missing = [name for name in REQUIRED if name not in verdicts]
        if missing:
            raise DataError(
                "There are no people's verdicts to answer with: the table lacks "
                f"{', '.join(missing)}. Have a sample judged (`--pipelines review_export`), and import the "
                "verdicts (`--pipelines review_import --params verdicts=FILE`)."
            )
        if "policy_digest" not in verdicts:
            logger.warning(
                "The verdicts of people do not say which text of the policy they read (column "
                "policy_digest): an edit of it that kept its version would go unnoticed"
            )
        opinions: dict[str, dict[tuple[str, str], tuple[Opinion, ...]]] = {}
        rows = verdicts.assign(complies=read_verdict_column(verdicts)).to_dict("records")
        for row in rows:
            rules = row.get("rules_broken")
            broken = tuple(filter(None, rules.split(","))) if isinstance(rules, str) else ()
            complies = None if pd.isna(row["complies"]) else bool(row["complies"])
            by_response = opinions.setdefault(row["policy"], {})
            key = (row["prompt"], row["response"])
            opinion = Opinion(complies, broken, str(row.get("annotator", "")))
            by_response[key] = (*by_response.get(key, ()), opinion)
        return cls(opinions, policy_digests(verdicts))

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange.

        Raises:
            DataError: No verdict at all was given under this policy, or under what it says now.
        """
        if policy.full_name not in self.opinions:
            raise DataError(
                f"No verdict of people was given under {policy.full_name}; found: "
                f"{', '.join(self.opinions)}. Verdicts under another policy say nothing of this one: export "
                "and judge again (`--pipelines review_export`)."
            )
        check_policy_text(self.digests.get(policy.full_name, ()), policy)
        opinions = self.opinions[policy.full_name]
        return [self._judge(opinions.get((exchange.prompt, exchange.response), ())) for exchange in exchanges]

    def _judge(self, opinions: Sequence[Opinion]) -> Judgment:
        votes = Counter(opinion.complies for opinion in opinions if opinion.complies is not None)
        if not votes:
            reason = "every annotator was unsure" if opinions else NOT_JUDGED
            return Judgment(None, 0.0, reason=reason, oracle=self.name)
        if votes[True] == votes[False]:
            reason = f"a tie of {votes[True]} to {votes[False]} annotators"
            return Judgment(None, 0.0, reason=reason, oracle=self.name)
        complies = votes[True] > votes[False]
        broken = () if complies else _find_broken_rules(opinions)
        reason = f"{votes[complies]} of {votes.total()} annotators"
        return Judgment(complies, votes[complies] / votes.total(), broken, reason, self.name)


def _find_broken_rules(opinions: Sequence[Opinion]) -> tuple[str, ...]:
    """Return the rules that at least half of those who saw a violation name."""
    violations = [opinion for opinion in opinions if opinion.complies is False]
    counts: Counter[str] = Counter()
    for opinion in violations:
        counts.update(opinion.rules_broken)
    return tuple(rule for rule, count in counts.items() if 2 * count >= len(violations))


def policy_digests(verdicts: pd.DataFrame) -> dict[str, frozenset[str]]:
    """Return policy → digests of its text, from the columns policy and policy_digest.

    Args:
        verdicts: A table of verdicts.

    Returns:
        Nothing where the table has no column policy_digest.
    """
    if "policy_digest" not in verdicts:
        return {}
    rows = verdicts[verdicts["policy_digest"].notna()]
    return {str(name): frozenset(part) for name, part in rows.groupby("policy")["policy_digest"]}


def check_policy_text(digests: Collection[str], policy: Policy) -> None:
    """Check that people judged by the policy's present text: it may be edited and keep its version.

    Args:
        digests: Digests of the texts that people read.
        policy: The policy to judge by.

    Raises:
        DataError: Some judged by another text of it.
    """
    others = sorted(set(digests) - {policy.fingerprint})
    if others:
        raise DataError(
            f"{policy.full_name} was edited since people judged by it (it was {', '.join(others)}, now it is "
            f"{policy.fingerprint}), and kept its version: their verdicts say nothing of what it says now. "
            "Export and judge again (`--pipelines review_export`). Where the edit does not matter, import "
            f"their files once more with `--params review.same_as={others[0]}`."
        )


def read_imported_verdicts(path: Path) -> pd.DataFrame:
    """Read imported verdicts.

    Args:
        path: A file, or the folder of a versioned catalog entry, of which the newest version is read.

    Returns:
        The table of verdicts.

    Raises:
        DataError: There is no such file.
    """
    path = find_newest_version(path)
    if not path.is_file():
        raise DataError(
            f"No people's verdicts at {path}. Import some (`--pipelines review_import --params "
            "verdicts=FILE`), or set `judging.human.verdicts`."
        )
    return read_table(str(path))
