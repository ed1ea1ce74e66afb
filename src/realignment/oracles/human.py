"""The oracle that answers with people's verdicts: the majority of those who judged the very same response."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from realignment.intake.flags import verdict_column
from realignment.intake.readers import read_table
from realignment.policy import Policy
from realignment.records import DataError, Exchange, Judgment

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
    """The majority of the annotators; a tie, and what nobody has judged, is unscored.

    Confidence is the share of those who gave a verdict that are with the majority.
    """

    opinions: Mapping[str, Mapping[tuple[str, str], tuple[Opinion, ...]]]
    """Policy (name-version) → prompt and response → what people said."""
    digests: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Policy → the digests of its text that people read, as far as they are known."""
    name: str = "human"

    @classmethod
    def from_table(cls, verdicts: pd.DataFrame) -> "HumanOracle":
        """From imported verdicts (`review.verdicts.VERDICT_COLUMNS`).

        Raises:
            DataError: There are none, or one is no verdict.
        """
        if missing := [name for name in REQUIRED if name not in verdicts]:
            raise DataError(
                "There are no people's verdicts to answer with: the table lacks "
                f"{', '.join(missing)}. Have a sample judged (`--pipelines review_export`), and import the "
                "verdicts "
                "(`--pipelines review_import --params verdicts=FILE`)."
            )
        if "policy_digest" not in verdicts:
            logger.warning(
                "The verdicts of people do not say which text of the policy they read (column "
                "policy_digest): an edit of it that kept its version would go unnoticed"
            )
        opinions: dict[str, dict[tuple[str, str], tuple[Opinion, ...]]] = {}
        rows = verdicts.assign(complies=verdict_column(verdicts)).to_dict("records")
        for row in rows:
            rules = row.get("rules_broken")
            broken = tuple(filter(None, rules.split(","))) if isinstance(rules, str) else ()
            complies = None if pd.isna(row["complies"]) else bool(row["complies"])
            given, key = opinions.setdefault(row["policy"], {}), (row["prompt"], row["response"])
            given[key] = (*given.get(key, ()), Opinion(complies, broken, str(row.get("annotator", ""))))
        return cls(opinions, digests_of(verdicts))

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange.

        Raises:
            DataError: No verdict at all was given under this policy, or under what it says now.
        """
        if policy.full_name not in self.opinions:
            raise DataError(
                f"No verdict of people was given under {policy.full_name}; found: "
                f"{', '.join(self.opinions)}. "
                "Verdicts under another policy say nothing of this one: export and judge again "
                "(`--pipelines review_export`)."
            )
        check_text(self.digests.get(policy.full_name, ()), policy)
        given = self.opinions[policy.full_name]
        return [self._judge(given.get((exchange.prompt, exchange.response), ())) for exchange in exchanges]

    def _judge(self, opinions: Sequence[Opinion]) -> Judgment:
        votes = Counter(opinion.complies for opinion in opinions if opinion.complies is not None)
        if not votes:
            reason = "every annotator was unsure" if opinions else NOT_JUDGED
            return Judgment(None, 0.0, reason=reason, oracle=self.name)
        if votes[True] == votes[False]:
            return Judgment(
                None, 0.0, reason=f"a tie of {votes[True]} to {votes[False]} annotators", oracle=self.name
            )
        complies = votes[True] > votes[False]
        agree = votes[complies]
        # A rule counts as broken where at least half of those who saw a violation name it.
        named = Counter(r for opinion in opinions if opinion.complies is False for r in opinion.rules_broken)
        broken = tuple(rule for rule, n in named.items() if 2 * n >= votes[False] and not complies)
        reason = f"{agree} of {votes.total()} annotators"
        return Judgment(complies, agree / votes.total(), broken, reason, self.name)


def digests_of(verdicts: pd.DataFrame) -> dict[str, frozenset[str]]:
    """Policy → digests of it, by the columns policy and policy_digest, where a table has the latter."""
    if "policy_digest" not in verdicts:
        return {}
    known = verdicts[verdicts["policy_digest"].notna()]
    return {str(name): frozenset(part) for name, part in known.groupby("policy")["policy_digest"]}


def check_text(digests: Collection[str], policy: Policy) -> None:
    """Make sure that people judged by what the policy says now: it may be edited and keep its version.

    Raises:
        DataError: Some judged by another text of it.
    """
    if others := sorted(set(digests) - {policy.fingerprint}):
        raise DataError(
            f"{policy.full_name} was edited since people judged by it (it was {', '.join(others)}, now it is "
            f"{policy.fingerprint}), and kept its version: their verdicts say nothing of what it says now. "
            "Export and judge again (`--pipelines review_export`). Where the edit does not matter, import "
            f"their files once more with `--params review.same_as={others[0]}`."
        )


def read_imported(path: Path) -> pd.DataFrame:
    """Imported verdicts: a file, or the folder of a versioned catalog entry, of which the newest is read.

    Raises:
        DataError: There is none.
    """
    if path.is_dir():
        path = max(path.glob(f"*/{path.name}"), default=path / "…")
    if not path.is_file():
        raise DataError(
            f"No people's verdicts at {path}. Import some (`--pipelines review_import --params "
            "verdicts=FILE`), or "
            "set `judging.human.verdicts`."
        )
    return read_table(str(path))
