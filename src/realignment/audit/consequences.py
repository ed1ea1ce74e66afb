"""Report what an oracle's errors mean for training, and stop a run in which there are too many."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from realignment.audit.measuring import Audit
from realignment.records import Disposition, HealthError
from realignment.statistics import wilson_interval
from realignment.tracking.lineage import Manifest

logger = logging.getLogger(__name__)

EFFECTS = {
    ("INVERT", "RETAIN"): "a complying answer is trained away from, and the other one preferred",
    ("PUNISH", "RETAIN"): "a complying answer is suppressed",
    ("INVERT", "PUNISH"): "a violating answer is preferred over another",
    ("PUNISH", "INVERT"): "the complying answer is suppressed together with the violating one",
    (
        "RETAIN",
        "INVERT",
    ): "a violation is held in place by the KL anchor, and its better answer is not learnt",
    ("RETAIN", "PUNISH"): "a violation is held in place by the KL anchor",
}
"""(assigned, true) → what training does with such a pair."""

_CIRCULAR = "The oracle has some of its verdicts from this truth, so at best: "


def report_audit(
    audit: Audit, metrics: pd.DataFrame, *, truth: str, manifest: Manifest, independent: bool = True
) -> dict[str, Any]:
    """Report an audit: headline figures, the errors by their effect on training, and what they mean.

    Args:
        audit: The measured audit.
        metrics: The audit's figures, and those of comparisons between oracles.
        truth: Source of the truth: labels or people.
        manifest: Manifest of the triage that was audited: an audit counts for no other.
        independent: See `audit.truth.is_independent`. An oracle that has verdicts from the truth has no error
            rates, which would be too small.

    Returns:
        The `audit_report`.
    """
    audit = audit if independent else replace(audit, error_rates={})
    (share,) = metrics[metrics["metric"] == "misrouted"].to_dict("records")
    n = int((audit.audited["true_disposition"] != Disposition.REVIEW).sum())
    return {
        "truth": truth,
        "independent": independent,
        "oracle": manifest["oracle"],
        "triage": manifest["outputs"],
        "policy": manifest["policy"],
        "n": n,
        "without_truth": len(audit.audited) - n,
        "misrouted": {"share": share["value"], "interval": [share["low"], share["high"]]},
        "effects": list(_effects(audit.confusion)),
        "meaning": ("" if independent else _CIRCULAR) + describe_misrouting(audit, share),
        "error_rates": audit.error_rates,
        "metrics": _nest(metrics),
    }


def _nest(metrics: pd.DataFrame) -> dict[str, Any]:
    """Scope → group → metric → value, low, high, n."""
    nested: dict[str, Any] = {}
    for row in metrics.to_dict("records"):
        group = nested.setdefault(row["scope"], {}).setdefault(row["group"], {})
        group[row["metric"]] = {key: row[key] for key in ("value", "low", "high", "n")}
    return nested


def _effects(confusion: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Every kind of misrouting with the pairs of the population that it concerns, most first."""
    cells = confusion[confusion["pairs"] > 0].sort_values("pairs", ascending=False)
    for row in cells.to_dict("records"):
        effect = EFFECTS.get((row["assigned"], row["true"]))
        if effect is None:  # routed as the truth implies, or in review
            continue
        yield {
            "assigned": row["assigned"],
            "true": row["true"],
            "pairs": row["pairs"],
            "interval": [row["low"], row["high"]],
            "effect": effect,
        }


def describe_misrouting(audit: Audit, share: Mapping[Any, Any]) -> str:
    """Describe in one paragraph how many pairs are misrouted, and what that does in training.

    Args:
        audit: The measured audit.
        share: The row of the metric `misrouted`: value, low, high.

    Returns:
        The paragraph, with the three largest kinds of error.
    """
    rows = audit.confusion
    trained = rows.loc[rows["assigned"] != Disposition.REVIEW, "pairs"].sum()
    text = (
        f"An estimated {share['value']:.1%} (95 % interval {share['low']:.1%} to {share['high']:.1%}) of the "
        f"{trained:,.0f} pairs outside REVIEW have another disposition than the truth implies: about "
        f"{share['value'] * trained:,.0f} pairs."
    )
    for effect in list(_effects(rows))[:3]:
        low, high = effect["interval"]
        text += (
            f" {effect['assigned']} that is {effect['true']} in truth, about {effect['pairs']:,.0f} pairs "
            f"({low:,.0f} to {high:,.0f}): {effect['effect']}."
        )
    invert = audit.error_rates.get("INVERT")
    if invert is not None:
        text += (
            f" An inverted preference is wrong with probability {invert['rate']:.2f} (no preference counts "
            "half): `loss.invert: robust` with `loss.error_rate: audited` corrects for it in expectation."
        )
    return text


def check_misrouting(
    triage_manifest: Manifest,
    oracle_report: Mapping[str, Any],
    audit_report: Mapping[str, Any],
    *,
    limit: float,
) -> bool:
    """Stop a run before training if too many pairs are misrouted, as far as that is known.

    An audit of these splits comes first; without one, the labels of the data, if it has any.

    Args:
        triage_manifest: Manifest of the splits.
        oracle_report: Accuracy by the labels of the data.
        audit_report: The latest audit; empty where there is none.
        limit: Largest share of misrouted pairs, of those outside REVIEW.

    Returns:
        Whether there is an audit of these splits that gives error rates.

    Raises:
        HealthError: The share is above the limit.
    """
    audited = bool(audit_report.get("triage") == triage_manifest["outputs"])
    if audit_report and not audited:
        logger.warning("The latest audit is of other splits than these, so it does not count for them.")
    if audited:
        share = audit_report["misrouted"]["share"]
        interval = audit_report["misrouted"]["interval"]
        source = f"an audit of {audit_report['n']} pairs"
    else:
        misrouted, n = _count_misrouted(oracle_report.get("disposition_confusion", {}))
        if not n:
            return False
        share = misrouted / n
        interval = wilson_interval(misrouted, n)
        source = f"the labels of {n} pairs"
    if share > limit:
        raise HealthError(
            f"By {source}, {share:.1%} of the pairs to train on (95 % interval {interval[0]:.1%} to "
            f"{interval[1]:.1%}) have another disposition than the truth implies; the limit is {limit:.1%} "
            f"(`audit.max_misrouted`). The oracle {triage_manifest['oracle']!r} makes these errors: see "
            "`audit_report` and `oracle_report`. Correct the policy's rules, choose another "
            "`judging.oracle`, send doubtful verdicts to people (`triage.min_confidence`, `--pipelines "
            "review_export`), or raise the limit."
        )
    return audited and bool(audit_report["error_rates"])


def _count_misrouted(confusion: Mapping[str, Mapping[str, int]]) -> tuple[int, int]:
    """Misrouted pairs, and all pairs outside REVIEW, from true → assigned → pairs."""
    misrouted = 0
    routed = 0
    for true, row in confusion.items():
        for assigned, n in row.items():
            if assigned == Disposition.REVIEW:
                continue
            routed += n
            if assigned != true:
                misrouted += n
    return misrouted, routed
