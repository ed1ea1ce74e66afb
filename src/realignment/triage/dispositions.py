"""Give every pair the disposition that its two judgments imply, and report how many went where."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from realignment.records import CONFLICTS, Counts, Disposition, HealthError

FLAG_BOTH_COMPLY = "both comply"
FLAG_STILL_PREFERRED = "still preferred"


def triage(pairs: pd.DataFrame, judgments: pd.DataFrame, *, min_confidence: float) -> pd.DataFrame:
    """Give every pair the disposition that its judgments imply.

    A verdict below `min_confidence` counts as not known. A correction is kept only where the oracle says that
    it complies.

    Args:
        pairs: Cleaned pairs.
        judgments: From `judging.judge_pairs`, for the same pairs.
        min_confidence: In [0, 1].

    Returns:
        The pairs, in order, with columns disposition, chosen_verdict, rejected_verdict, rules_broken (by
        chosen), confidence (the smaller of chosen and rejected), flag.
    """
    chosen = _judgments_of(judgments, "chosen", pairs)
    rejected = _judgments_of(judgments, "rejected", pairs)
    correction = _judgments_of(judgments, "correction", pairs)
    chosen_verdicts = _confident_verdicts(chosen, min_confidence)
    rejected_verdicts = _confident_verdicts(rejected, min_confidence)
    verified = [verdict is True for verdict in _confident_verdicts(correction, min_confidence)]
    dispositions = list(map(decide_disposition, chosen_verdicts, rejected_verdicts))
    flags = list(map(_flag, dispositions, rejected_verdicts))
    # A response without a judgment has confidence 0.
    confidence = np.minimum(
        chosen["confidence"].fillna(0.0).to_numpy(float), rejected["confidence"].fillna(0.0).to_numpy(float)
    )
    return pairs.assign(
        correction=pairs["correction"].where(pd.Series(verified, index=pairs.index, dtype=bool)),
        disposition=[str(disposition) for disposition in dispositions],
        chosen_verdict=pd.array(chosen_verdicts, dtype="boolean"),
        rejected_verdict=pd.array(rejected_verdicts, dtype="boolean"),
        rules_broken=chosen["rules_broken"].fillna("").to_numpy(),
        confidence=confidence,
        flag=pd.Series(flags, index=pairs.index, dtype=object),
    )


def _judgments_of(judgments: pd.DataFrame, response: str, pairs: pd.DataFrame) -> pd.DataFrame:
    """Judgments of one response of every pair, in the pairs' order; a row without a judgment is null."""
    of_response = judgments[judgments["response"] == response]
    return of_response.set_index("pair_id").reindex(pairs["pair_id"])


def _confident_verdicts(judgments: pd.DataFrame, min_confidence: float) -> list[bool | None]:
    # A comparison with a missing confidence is False, so a missing judgment stays null too.
    confident = judgments["complies"].where(judgments["confidence"] >= min_confidence)
    return [None if pd.isna(verdict) else bool(verdict) for verdict in confident]


def _flag(disposition: Disposition, rejected: bool | None) -> str | None:
    if disposition is not Disposition.RETAIN or rejected is None:
        return None
    return FLAG_BOTH_COMPLY if rejected else FLAG_STILL_PREFERRED


def split_by_disposition(triaged: pd.DataFrame) -> dict[Disposition, pd.DataFrame]:
    """Return one table per disposition; together they are the input, without overlap."""
    return {d: triaged[triaged["disposition"] == d].reset_index(drop=True) for d in Disposition}


def report_triage(triaged: pd.DataFrame, *, max_punish_share: float) -> dict[str, Any]:
    """Report how many pairs went where, and why; see `report_counts`."""
    return report_counts(count_pairs(triaged), max_punish_share=max_punish_share)


def count_pairs(triaged: pd.DataFrame) -> Counts:
    """Count what `report_counts` reports; the counts of a table are the sum of those of its parts."""
    dispositions = triaged["disposition"]
    counts: Counts = Counter()
    chosen_words = map(_verdict_word, triaged["chosen_verdict"])
    rejected_words = map(_verdict_word, triaged["rejected_verdict"])
    for chosen, rejected, disposition in zip(chosen_words, rejected_words, dispositions, strict=True):
        counts["verdicts", chosen, rejected, disposition] += 1
    for disposition, domain in zip(dispositions, triaged["domain"].fillna("(none)"), strict=True):
        counts["count", disposition] += 1
        counts["domain", str(domain), disposition] += 1
    for flag in triaged["flag"].dropna():
        counts["flag", str(flag)] += 1
    conflicts = triaged[dispositions.isin(CONFLICTS)]
    for rules in conflicts["rules_broken"]:
        # One cell names all broken rules, separated by commas; it is empty where none is named.
        counts.update(("rule", rule) for rule in rules.split(",") if rule)
    punished = triaged[dispositions == Disposition.PUNISH]
    counts["with_correction",] = int(punished["correction"].notna().sum())
    return counts


def _verdict_word(verdict: Any) -> str:
    if pd.isna(verdict):
        return "unscored"
    return "complies" if verdict else "violates"


def report_counts(
    counts: Counts, *, max_punish_share: float, retain_kept: int | None = None
) -> dict[str, Any]:
    """Make the triage report of counts.

    Args:
        counts: From `count_pairs`, of all pairs.
        max_punish_share: Above it the report warns.
        retain_kept: RETAIN pairs that are handed on, where these are not all.

    Returns:
        The report `triage_report`.
    """
    groups: dict[str, dict[tuple[str, ...], int]] = {}
    # Most first; equal counts by name, so that the order does not depend on how the pairs were divided.
    for (group, *key), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        groups.setdefault(group, {})[tuple(key)] = count
    dispositions = {str(d): counts["count", str(d)] for d in Disposition}
    punish_share = dispositions[Disposition.PUNISH] / max(sum(dispositions.values()), 1)
    return {
        "counts": dispositions,
        "retain_kept": dispositions[Disposition.RETAIN] if retain_kept is None else retain_kept,
        "verdicts": [
            {"chosen": chosen, "rejected": rejected, "disposition": disposition, "count": count}
            for (chosen, rejected, disposition), count in groups.get("verdicts", {}).items()
        ],
        "flags": {flag: count for (flag,), count in groups.get("flag", {}).items()},
        "by_rule": {rule: count for (rule,), count in groups.get("rule", {}).items()},
        "by_domain": _by_domain(counts, dispositions),
        "with_correction": counts["with_correction",],
        "warnings": [_punish_warning(punish_share, max_punish_share)]
        if punish_share > max_punish_share
        else [],
    }


def _by_domain(counts: Counts, dispositions: dict[str, int]) -> dict[str, dict[str, int]]:
    """Pairs of each domain by disposition; dispositions without any pair are left out."""
    domains = sorted({key[1] for key in counts if key[0] == "domain"})
    columns = [name for name in sorted(dispositions) if dispositions[name]]
    table = {}
    for domain in domains:
        table[domain] = {name: counts["domain", domain, name] for name in columns}
    return table


def _punish_warning(share: float, limit: float) -> str:
    return (
        f"PUNISH pairs are {share:.0%} of all (limit {limit:.0%}): suppressing so "
        "much risks the model's utility. Give corrections, lower `loss.punish_weight`, or raise "
        "`loss.kl_weight`."
    )


def check_triage(counts: dict[str, int]) -> None:
    """Stop the run where a disposition that training needs is empty.

    Args:
        counts: Pairs of each disposition.

    Raises:
        HealthError: Every pair is in review, or nothing is retained while there are conflicts.
    """
    conflicts = counts[Disposition.INVERT] + counts[Disposition.PUNISH]
    if conflicts and not counts[Disposition.RETAIN]:
        raise HealthError(
            f"No pair is RETAIN ({conflicts} conflicts): nothing would hold the model's general ability in "
            "place. Add pairs whose chosen response complies, such as pairs on topics that the policy does "
            "not touch."
        )
    if not conflicts and not counts[Disposition.RETAIN]:
        raise HealthError(
            f"All {counts[Disposition.REVIEW]} pairs went to review: the oracle gave no confident verdict. "
            "See `judgments`, choose another `judging.oracle`, or lower `triage.min_confidence`."
        )


def decide_disposition(chosen: bool | None, rejected: bool | None) -> Disposition:
    """Return the disposition of two verdicts, by the truth table of triage (method.md, section 3).

    Args:
        chosen: Whether the chosen response complies with the new policy; None: not known.
        rejected: The same for the rejected response.

    Returns:
        The disposition of the pair.

    Example:
        >>> print(decide_disposition(False, True))
        INVERT
    """
    if chosen is None or (chosen is False and rejected is None):
        return Disposition.REVIEW
    if chosen:
        return Disposition.RETAIN
    return Disposition.INVERT if rejected else Disposition.PUNISH
