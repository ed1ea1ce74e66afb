"""Draw the gold batch: which pairs can be gold, how many of each disposition, and which of these."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Literal

import pandas as pd

from realignment.records import CONFLICTS, Disposition


def select_candidates(
    pairs: pd.DataFrame,
    *,
    retained: Literal["decided", "all"],
    punished: Literal["correction", "random_compliant"],
) -> pd.DataFrame:
    """Select the pairs that can be gold: those that state a preference of the new policy.

    Args:
        pairs: Triaged pairs.
        retained: ``decided``: RETAIN pairs whose rejected response violates; where both comply, a RETAIN pair
            states only the old preference. ``all``: every RETAIN pair, as published.
        punished: ``correction``: PUNISH pairs with a verified correction. ``random_compliant``: every PUNISH
            pair, as published.

    Returns:
        One pair a prompt, those first whose prompt has few pairs, else in the order of the pairs.
    """
    # The other pairs of a gold prompt cannot be trained on, so prompts with few of them go first.
    pairs_of_prompt = pairs.groupby("prompt")["prompt"].transform("size")
    ordered = pairs.iloc[pairs_of_prompt.argsort(kind="stable")]
    dispositions = ordered["disposition"]
    # Null: not scored, and not known to violate.
    violates = ~ordered["rejected_verdict"].astype("boolean").fillna(True)
    is_retained = (dispositions == Disposition.RETAIN) & (violates | (retained == "all"))
    can_prefer = ordered["correction"].notna() | (punished == "random_compliant")
    is_punished = (dispositions == Disposition.PUNISH) & can_prefer
    is_inverted = dispositions == Disposition.INVERT
    return ordered[is_inverted | is_punished | is_retained].drop_duplicates("prompt")


def compute_gold_quota(available: dict[str, int], size: int) -> dict[str, int]:
    """Return how many gold pairs each disposition gives: thirds, PUNISH taking the remainder.

    What one disposition lacks, the others give.

    Args:
        available: Usable pairs of each disposition.
        size: Gold pairs in all, B.

    Returns:
        Number of pairs by disposition; their sum is below `size` only where there are too few pairs.

    Example:
        >>> compute_gold_quota({"RETAIN": 20, "INVERT": 2, "PUNISH": 20}, 10)
        {'RETAIN': 4, 'INVERT': 2, 'PUNISH': 4}
    """
    third = size // 3
    thirds = {
        Disposition.RETAIN: third,
        Disposition.INVERT: third,
        Disposition.PUNISH: size - 2 * third,
    }
    quota = {
        str(disposition): min(count, available.get(disposition, 0)) for disposition, count in thirds.items()
    }
    # Fill up what is missing, one disposition after another, as far as each has pairs left.
    for disposition in (Disposition.INVERT, Disposition.RETAIN, Disposition.PUNISH):
        missing = size - sum(quota.values())
        unused = available.get(disposition, 0) - quota[disposition]
        quota[disposition] += max(0, min(missing, unused))
    return quota


def draw_gold(
    candidates: pd.DataFrame, size: int, composition: Literal["random", "policy_targeted"]
) -> pd.DataFrame:
    """Draw the gold batch of the candidates.

    Args:
        candidates: From `select_candidates`, of triaged pairs in random order.
        size: Gold pairs in all, B.
        composition: ``random``: the first of each disposition; ``policy_targeted``: conflicts so that the
            broken rules are covered as evenly as possible.

    Returns:
        The gold pairs, by disposition; fewer than `size` where there are too few candidates.
    """
    available = {str(d): int((candidates["disposition"] == d).sum()) for d in Disposition}
    coverage: Counter[str] = Counter()
    parts = []
    for disposition, count in compute_gold_quota(available, size).items():
        members = candidates[candidates["disposition"] == disposition]
        if composition == "policy_targeted" and disposition in CONFLICTS:
            # INVERT and PUNISH share the coverage: a rule that few INVERT pairs break is made up for.
            broken = [tuple(ids.split(",")) for ids in members["rules_broken"]]
            parts.append(members.iloc[draw_evenly(broken, count, coverage)])
        else:
            parts.append(members.head(count))
    return pd.concat(parts)


def draw_evenly(rules_broken: Sequence[tuple[str, ...]], count: int, coverage: Counter[str]) -> list[int]:
    """Draw pairs so that the rules they break are covered as evenly as possible.

    Greedy: next comes a pair that breaks the rule covered least so far among the rules with pairs left; of
    several such pairs the one whose most covered rule is covered least, then the first.

    Args:
        rules_broken: Rules that each pair breaks, at least one; a pair counts for each of them.
        count: Pairs to draw.
        coverage: Pairs drawn so far by rule; the drawn ones are added.

    Returns:
        Positions of the drawn pairs, in the order of the draw; all where there are fewer than `count`.

    Example:
        >>> draw_evenly([("a",), ("a",), ("a", "b"), ("b",)], 3, Counter())
        [0, 3, 1]
    """
    # Pairs that break the same rules are equally good, so only the first left of each group is looked at.
    waiting: dict[tuple[str, ...], deque[int]] = {}
    for position, rules in enumerate(rules_broken):
        waiting.setdefault(rules, deque()).append(position)

    def cost(rules: tuple[str, ...]) -> tuple[int, int, int]:
        covered = [coverage[rule] for rule in rules]
        return min(covered), max(covered), waiting[rules][0]

    drawn: list[int] = []
    while waiting and len(drawn) < count:
        rules = min(waiting, key=cost)
        drawn.append(waiting[rules].popleft())
        coverage.update(set(rules))
        if not waiting[rules]:
            del waiting[rules]
    return drawn
