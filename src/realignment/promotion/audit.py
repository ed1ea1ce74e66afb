"""Check that the oracle which made the splits has passed an audit, where the gate requires one."""

from collections.abc import Mapping
from typing import Any

from realignment.promotion.gate import Check

NAME = "audit"
"""The check's name in the gate's report."""

_ADVICE = "Run `kedro run --pipelines audit`, then `kedro run --pipelines promotion`."


def check_audit(
    audit_report: Mapping[str, Any], triage_manifest: Mapping[str, Any], *, limit: float
) -> Check:
    """Check the latest audit: it is of these very splits, by an independent truth, and within its limit.

    Args:
        audit_report: The latest audit; empty where there is none.
        triage_manifest: Manifest of the splits that the model was trained on.
        limit: Largest share of misrouted pairs, of those outside REVIEW (`audit.max_misrouted`).

    Returns:
        The check; its value is the share of misrouted pairs, None where no audit counts.
    """
    if not audit_report:
        return _fail(limit, f"the oracle was not audited, and the gate requires it. {_ADVICE}")
    if audit_report["triage"] != triage_manifest["outputs"]:
        return _fail(limit, f"the latest audit is of other splits than those of this run. {_ADVICE}")
    if not audit_report["independent"]:
        return _fail(
            limit,
            "the oracle has some of its verdicts from the truth that it was audited by. Audit it by another "
            "one (`audit.truth`).",
        )
    share = float(audit_report["misrouted"]["share"])
    low, high = audit_report["misrouted"]["interval"]
    detail = (
        f"{NAME}: {100 * share:.1f} % of the pairs (95 % interval {100 * low:.1f} % to {100 * high:.1f} %, "
        f"n = {audit_report['n']}, truth: {audit_report['truth']}) are misrouted by the oracle "
        f"{audit_report['oracle']!r}; the share may be at most {100 * limit:.1f} % (`audit.max_misrouted`)."
    )
    # A share that is not a number is not within the limit.
    return {"name": NAME, "value": share, "limit": limit, "passed": share <= limit, "detail": detail}


def _fail(limit: float, reason: str) -> Check:
    return {"name": NAME, "value": None, "limit": limit, "passed": False, "detail": f"{NAME}: {reason}"}
