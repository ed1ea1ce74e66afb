"""Triage: two judgments make a disposition; every pair gets exactly one (method.md, section 3)."""

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
    wide = _by_response(pairs, judgments)
    sure = {r: wide[r]["complies"].where(wide[r]["confidence"] >= min_confidence) for r in wide}
    verdicts = {r: [None if pd.isna(v) else bool(v) for v in sure[r]] for r in sure}
    dispositions = [
        disposition_of(c, r) for c, r in zip(verdicts["chosen"], verdicts["rejected"], strict=True)
    ]
    confidence = np.minimum(
        *(wide[r]["confidence"].fillna(0.0).to_numpy(float) for r in ("chosen", "rejected"))
    )
    flags = [_flag(*v) for v in zip(dispositions, verdicts["rejected"], strict=True)]
    verified = [verdict is True for verdict in verdicts["correction"]]
    return pairs.assign(
        correction=pairs["correction"].where(pd.Series(verified, index=pairs.index, dtype=bool)),
        disposition=[str(disposition) for disposition in dispositions],
        chosen_verdict=pd.array(verdicts["chosen"], dtype="boolean"),
        rejected_verdict=pd.array(verdicts["rejected"], dtype="boolean"),
        rules_broken=wide["chosen"]["rules_broken"].fillna("").to_numpy(),
        confidence=confidence,
        flag=pd.Series(flags, index=pairs.index, dtype=object),
    )


def _by_response(pairs: pd.DataFrame, judgments: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Judgments of each response, aligned with the pairs' order; rows without a judgment are null."""
    keyed = judgments.set_index(["response", "pair_id"])
    return {
        response: keyed.loc[[response]].droplevel(0).reindex(pairs["pair_id"])
        if response in keyed.index.get_level_values(0)
        else keyed.iloc[:0].droplevel(0).reindex(pairs["pair_id"])
        for response in ("chosen", "rejected", "correction")
    }


def _flag(disposition: Disposition, rejected: bool | None) -> str | None:
    if disposition is not Disposition.RETAIN or rejected is None:
        return None
    return FLAG_BOTH_COMPLY if rejected else FLAG_STILL_PREFERRED


def split(triaged: pd.DataFrame) -> dict[Disposition, pd.DataFrame]:
    """One table per disposition; together they are the input, without overlap."""
    return {d: triaged[triaged["disposition"] == d].reset_index(drop=True) for d in Disposition}


def report_triage(triaged: pd.DataFrame, *, max_punish_share: float) -> dict[str, Any]:
    """How many pairs went where, and why."""
    return report_counts(count_pairs(triaged), max_punish_share=max_punish_share)


def count_pairs(triaged: pd.DataFrame) -> Counts:
    """What `report_counts` reports; what several parts of the pairs have is the sum of what each has."""
    columns = [triaged[name].tolist() for name in ("disposition", "chosen_verdict", "rejected_verdict")]
    counts: Counts = Counter(
        ("verdicts", _word(chosen), _word(rejected), d) for d, chosen, rejected in zip(*columns, strict=True)
    )
    counts.update(("count", d) for d in triaged["disposition"])
    counts.update(("flag", str(flag)) for flag in triaged["flag"].dropna())
    conflicts = triaged[triaged["disposition"].isin(CONFLICTS)]
    counts.update(("rule", rule) for cell in conflicts["rules_broken"] for rule in cell.split(",") if rule)
    domains = triaged["domain"].fillna("(none)")
    counts.update(("domain", str(n), d) for n, d in zip(domains, triaged["disposition"], strict=True))
    punished = triaged[triaged["disposition"] == Disposition.PUNISH]
    counts["with_correction",] = int(punished["correction"].notna().sum())
    return counts


def _word(verdict: Any) -> str:
    return "unscored" if pd.isna(verdict) else "complies" if verdict else "violates"


def report_counts(
    counts: Counts, *, max_punish_share: float, retain_kept: int | None = None
) -> dict[str, Any]:
    """The report of these counts (`count_pairs`).

    Args:
        counts: Of all pairs.
        max_punish_share: Above it the report warns.
        retain_kept: RETAIN pairs that are handed on, where these are not all.
    """
    by: dict[str, dict[tuple[str, ...], int]] = {}
    # Most first; equals by name, so that the parts do not matter.
    for (kind, *key), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        by.setdefault(kind, {})[tuple(key)] = count
    dispositions = {str(d): counts["count", str(d)] for d in Disposition}
    found = [d for d in sorted(dispositions) if dispositions[d]]
    domains = sorted({domain for domain, _ in by.get("domain", {})})
    punished = dispositions[Disposition.PUNISH] / max(sum(dispositions.values()), 1)
    return {
        "counts": dispositions,
        "retain_kept": dispositions[Disposition.RETAIN] if retain_kept is None else retain_kept,
        "verdicts": [
            {"chosen": chosen, "rejected": rejected, "disposition": disposition, "count": count}
            for (chosen, rejected, disposition), count in by.get("verdicts", {}).items()
        ],
        "flags": {flag: count for (flag,), count in by.get("flag", {}).items()},
        "by_rule": {rule: count for (rule,), count in by.get("rule", {}).items()},
        "by_domain": {name: {d: counts["domain", name, d] for d in found} for name in domains},
        "with_correction": counts["with_correction",],
        "warnings": [_warn_of_punish(punished, max_punish_share)] if punished > max_punish_share else [],
    }


def _warn_of_punish(share: float, limit: float) -> str:
    return (
        f"PUNISH pairs are {share:.0%} of all (limit {limit:.0%}): suppressing so "
        "much risks the model's utility. Give corrections, lower `loss.punish_weight`, or raise "
        "`loss.kl_weight`."
    )


def check_triage(counts: dict[str, int]) -> None:
    """Stop where a disposition that training needs is empty.

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


def disposition_of(chosen: bool | None, rejected: bool | None) -> Disposition:
    """The truth table of triage (method.md, section 3)."""
    if chosen is None or (chosen is False and rejected is None):
        return Disposition.REVIEW
    if chosen:
        return Disposition.RETAIN
    return Disposition.INVERT if rejected else Disposition.PUNISH
