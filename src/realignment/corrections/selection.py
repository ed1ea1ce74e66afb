"""Candidates → at most one correction per PUNISH pair, verified by another than its writer."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from realignment.corrections.candidates import PEOPLE
from realignment.judging import tabulate_judgments
from realignment.oracles import Oracle
from realignment.oracles.human import NOT_JUDGED
from realignment.oracles.labels import NO_LABEL
from realignment.policy import Policy
from realignment.records import Exchange, Judgment
from realignment.review.tasks import task_id
from realignment.statistics import wilson_interval

logger = logging.getLogger(__name__)

PROVENANCE = {
    "correction_writer": "writer",
    "correction_model": "model",
    "correction_candidate": "candidate",
    "correction_verifier": "verifier",
    "correction_policy": "policy",
    "correction_confidence": "confidence",
    "correction_topic": "topic",
    "correction_copied": "copied",
}
"""Column of a corrected pair → column of the candidate that it comes from."""

NOT_VERIFIED = "not judged: flawed"
"""The reason in the row of a candidate that the verifier was not asked about."""
AUTHOR = "author"
"""The verifier of a correction that a person wrote to comply, and that no oracle of the run can judge."""
VOUCHED = "its author wrote it to comply"
"""The reason in the row of such a correction."""


def verify_candidates(
    candidates: pd.DataFrame, pairs: pd.DataFrame, policy: Policy, oracle: Oracle, *, authors_vouch: bool
) -> pd.DataFrame:
    """Let an oracle judge the candidates that people wrote, and those of a model that have no flaw.

    The quality gate costs nothing and a verdict may, so the gate comes first. An oracle that looks up the
    verdicts of people, or labels, has none for a new text: there the person who wrote a correction verifies
    it.

    Args:
        candidates: From `corrections.assess_quality`.
        pairs: The PUNISH pairs.
        policy: The new policy.
        oracle: Any but the writer.
        authors_vouch: Whether a correction by a person that the oracle could not look up is verified by
            its author.

    Returns:
        The candidates with columns complies, confidence, rules_broken, reason, verifier, verified_under (the
        policy's digest, short) and task_id, by which people's verdicts refer to them.
    """
    written_by_people = (candidates["writer"] == PEOPLE) & (candidates["words"] > 0)
    is_judged = written_by_people | (candidates["flaws"] == "")
    exchanges = _build_exchanges(candidates[is_judged], pairs)
    judgments = oracle(exchanges, policy)
    writers = candidates.loc[is_judged, "writer"]
    if authors_vouch:
        judgments = [
            _vouch(judgment) if writer == PEOPLE else judgment
            for judgment, writer in zip(judgments, writers, strict=True)
        ]
    _warn_of_unused(writers, judgments, oracle.name)
    # Rows for all candidates again; those that were not judged are null.
    verdicts = tabulate_judgments(judgments).set_axis(candidates.index[is_judged]).reindex(candidates.index)
    is_vouched = (verdicts["reason"] == VOUCHED).to_numpy(bool)
    return candidates.assign(
        complies=verdicts["complies"],
        confidence=verdicts["confidence"].fillna(0.0),
        rules_broken=verdicts["rules_broken"].fillna("").astype("str"),
        reason=verdicts["reason"].fillna(NOT_VERIFIED).astype("str"),
        verifier=pd.Series(np.where(is_vouched, AUTHOR, oracle.name), index=candidates.index, dtype="str"),
        verified_under=pd.Series(policy.fingerprint, index=candidates.index, dtype="str"),
        task_id=_build_task_ids(candidates, pairs),
    )


def _build_exchanges(candidates: pd.DataFrame, pairs: pd.DataFrame) -> list[Exchange]:
    own_pairs = pairs.set_index("pair_id").loc[candidates["pair_id"]]
    rows = zip(own_pairs["prompt"], candidates["response"], own_pairs["domain"], strict=True)
    return [
        Exchange(prompt, response, domain if isinstance(domain, str) else None)
        for prompt, response, domain in rows
    ]


def _build_task_ids(candidates: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    prompts = candidates["pair_id"].map(pairs.set_index("pair_id")["prompt"])
    ids = [task_id(*texts) for texts in zip(prompts, candidates["response"], strict=True)]
    return pd.Series(ids, index=candidates.index, dtype="str")


def _vouch(judgment: Judgment) -> Judgment:
    """Replace a verdict that was not found by the author's own; any other verdict stands."""
    is_not_found = judgment.complies is None and judgment.reason in (NOT_JUDGED, NO_LABEL)
    return Judgment(True, 1.0, reason=VOUCHED, oracle=AUTHOR) if is_not_found else judgment


def _warn_of_unused(writers: pd.Series, judgments: Sequence[Judgment], oracle: str) -> None:
    """Log how many corrections by people the oracle could not judge, so that none is dropped silently."""
    of_people = [judgment for judgment, writer in zip(judgments, writers, strict=True) if writer == PEOPLE]
    reasons = Counter(judgment.reason for judgment in of_people if judgment.complies is None)
    if reasons:
        logger.warning(
            "%d of %d corrections that people wrote are not used: %r could not judge them, most often for "
            "this reason: %s. Set `corrections.verifier` to an oracle that reads texts, such as "
            "{oracle: rules}",
            reasons.total(), len(of_people), oracle, reasons.most_common(1)[0][0],
        )  # fmt: skip


def choose_corrections(verified: pd.DataFrame, *, min_confidence: float) -> pd.DataFrame:
    """Mark the best passing candidate of each pair and writer, and the one that becomes the correction.

    A candidate passes where the verifier says with enough confidence that it complies, and it has no flaw.
    What people wrote needs no quality gate: they have looked at it. People come before machines; then the
    most confident verdict, then the nearest topic, then the first candidate.

    Args:
        verified: From `verify_candidates`.
        min_confidence: Least confidence of a verdict, in [0, 1].

    Returns:
        The candidates with columns passes, best (of its pair and writer), selected (of its pair).
    """
    passes = (
        verified["complies"].fillna(False).astype(bool)
        & (verified["confidence"] >= min_confidence)
        & ((verified["writer"] == PEOPLE) | (verified["flaws"] == ""))
    )
    ranked = verified[passes]
    ranked = ranked.assign(machine=ranked["writer"] != PEOPLE, topic=ranked["topic"].fillna(0.0))
    ranked = ranked.sort_values(
        ["machine", "confidence", "topic", "candidate"], ascending=[True, False, False, True], kind="stable"
    )
    best = ranked.drop_duplicates(["pair_id", "writer"]).index.to_numpy()
    selected = ranked.drop_duplicates("pair_id").index.to_numpy()
    return verified.assign(
        passes=passes,
        best=np.isin(verified.index.to_numpy(), best),
        selected=np.isin(verified.index.to_numpy(), selected),
    )


def apply_corrections(punish: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """Give every PUNISH pair its selected correction and where it comes from; null where nothing passes.

    A pair without a correction is suppressed instead (`loss.punish`), row by row.

    Args:
        punish: PUNISH pairs.
        chosen: From `choose_corrections`.

    Returns:
        The pairs, in their order, with their correction and the columns of `PROVENANCE`.
    """
    selected = chosen[chosen["selected"]].set_index("pair_id")
    rows = selected.reindex(punish["pair_id"]).reset_index(drop=True)  # one per pair, null without one
    provenance = {name: rows[source] for name, source in PROVENANCE.items()}
    table = punish.reset_index(drop=True).assign(correction=rows["response"].astype("str"), **provenance)
    dtypes = dict.fromkeys(PROVENANCE, "str") | {
        "correction_candidate": "Int64",
        "correction_confidence": "float",
        "correction_topic": "float",
        "correction_copied": "float",
    }
    return table.astype(dtypes)


def report_corrections(punish: pd.DataFrame, chosen: pd.DataFrame) -> dict[str, Any]:
    """Count candidates by writer: how many pass, why others fail; and how many pairs are corrected.

    Args:
        punish: PUNISH pairs.
        chosen: From `choose_corrections`.

    Returns:
        pairs, corrected, suppressed, corrected_by, verified_by, verifier, and per writer its model, counts
        of flaws and verdicts, and shares with their 95 % intervals.
    """
    selected = chosen[chosen["selected"]]
    return {
        "pairs": len(punish),
        "corrected": len(selected),
        "suppressed": len(punish) - len(selected),
        "corrected_by": _count_values(selected["writer"]),
        "verified_by": _count_values(selected["verifier"]),
        "verifier": " and ".join(sorted(set(chosen["verifier"]))) or None,
        "writers": {
            str(writer): _report_writer(part) for writer, part in chosen.groupby("writer", sort=False)
        },
    }


def _report_writer(candidates: pd.DataFrame) -> dict[str, Any]:
    flaws = candidates["flaws"].str.split(",").explode()
    judged = candidates[candidates["reason"] != NOT_VERIFIED]
    verdicts = judged["complies"]
    rules = judged["rules_broken"].str.split(",").explode()
    pair_passes = candidates.groupby("pair_id")["passes"].any()
    return {
        "model": sorted(set(candidates["model"])),
        "candidates": len(candidates),
        "flaws": _count_values(flaws[flaws != ""]),
        "judged": len(judged),
        "complies": int(verdicts.fillna(False).sum()),
        "violates": int((~verdicts.fillna(True)).sum()),
        "unscored": int(verdicts.isna().sum()),
        "rules_broken": _count_values(rules[rules != ""]),
        "passing": _share(int(candidates["passes"].sum()), len(candidates)),
        "pairs_with_a_passing_one": _share(int(pair_passes.sum()), len(pair_passes)),
    }


def _count_values(values: pd.Series) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first."""
    return {str(value): int(count) for value, count in values.value_counts().items()}


def _share(count: int, total: int) -> dict[str, Any]:
    return {
        "n": count,
        "of": total,
        "share": count / total,
        "interval": list(wilson_interval(count, total)),
    }
