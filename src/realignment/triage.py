"""Triage: two judgments make a disposition; every pair gets exactly one (method.md, section 3)."""

from typing import Any

import numpy as np
import pandas as pd

from realignment.judging import disposition_of
from realignment.records import Disposition, HealthError

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
    counts = {str(d): int((triaged["disposition"] == d).sum()) for d in Disposition}
    conflicts = triaged[triaged["disposition"].isin([Disposition.INVERT, Disposition.PUNISH])]
    rules = conflicts["rules_broken"].str.split(",").explode()
    domains = triaged["domain"].fillna("(none)")
    by_domain = pd.crosstab(domains, triaged["disposition"]).to_dict("index")
    punished = triaged["disposition"] == Disposition.PUNISH
    warnings = []
    if len(triaged) and punished.mean() > max_punish_share:
        warnings.append(
            f"PUNISH pairs are {punished.mean():.0%} of all (limit {max_punish_share:.0%}): suppressing so "
            "much risks the model's utility. Give corrections, lower `loss.punish_weight`, or raise "
            "`loss.kl_weight`."
        )
    return {
        "counts": counts,
        "verdicts": _count_verdicts(triaged),
        "flags": {str(k): int(v) for k, v in triaged["flag"].dropna().value_counts().items()},
        "by_rule": {str(k): int(v) for k, v in rules[rules != ""].value_counts().items()},
        "by_domain": {str(k): {str(d): int(n) for d, n in row.items()} for k, row in by_domain.items()},
        "with_correction": int((punished & triaged["correction"].notna()).sum()),
        "warnings": warnings,
    }


def _count_verdicts(triaged: pd.DataFrame) -> list[dict[str, Any]]:
    def word(verdict: Any) -> str:
        return "unscored" if pd.isna(verdict) else "complies" if verdict else "violates"

    keys = pd.DataFrame(
        {
            "chosen": triaged["chosen_verdict"].map(word, na_action=None),
            "rejected": triaged["rejected_verdict"].map(word, na_action=None),
            "disposition": triaged["disposition"],
        }
    )
    return keys.value_counts().rename("count").reset_index().to_dict("records")  # type: ignore[return-value]


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
