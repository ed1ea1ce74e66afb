"""Candidates → one correction per PUNISH pair at most: gated, verified by somebody else, with its origin."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from realignment.corrections.candidates import PEOPLE
from realignment.judging import tabulate
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
"""Column of a corrected pair → column of the candidate it comes from."""

NOT_ASKED = "not judged: flawed"
AUTHOR = "author"
"""Verifier of a correction that a person wrote to comply, and that no oracle here has read."""
VOUCHED = "its author wrote it to comply"


def verify(
    candidates: pd.DataFrame, pairs: pd.DataFrame, policy: Policy, oracle: Oracle, *, authors_vouch: bool
) -> pd.DataFrame:
    """Let an oracle judge the candidates; of what a model wrote, only those without flaws.

    The gate costs nothing, a verdict may: so the gate comes first. An oracle that looks verdicts up (those
    of people, or labels) knows no new text: there the person who wrote it verifies it.

    Args:
        candidates: From `corrections.assess`.
        pairs: The PUNISH pairs.
        policy: The new policy.
        oracle: Not the writer.
        authors_vouch: Whether what people wrote and the oracle could not look up is verified by its author.

    Returns:
        The candidates with columns complies, confidence, rules_broken, reason, verifier, verified_under (the
        policy's digest, short) and task_id, by which people's verdicts find them.
    """
    asked = ((candidates["writer"] == PEOPLE) & (candidates["words"] > 0)) | (candidates["flaws"] == "")
    keyed = pairs.set_index("pair_id").loc[candidates.loc[asked, "pair_id"]]
    domains = (domain if isinstance(domain, str) else None for domain in keyed["domain"])
    texts = candidates.loc[asked, "response"]
    judgments = oracle([Exchange(*row) for row in zip(keyed["prompt"], texts, domains, strict=True)], policy)
    if authors_vouch:
        writers = candidates.loc[asked, "writer"]
        judgments = [_vouch(j) if who == PEOPLE else j for j, who in zip(judgments, writers, strict=True)]
    _warn_of_dropped(candidates.loc[asked, "writer"], judgments, oracle.name)
    rows = tabulate(judgments).set_axis(candidates.index[asked]).reindex(candidates.index)
    vouched = (rows["reason"] == VOUCHED).to_numpy(bool)
    return candidates.assign(
        complies=rows["complies"],
        confidence=rows["confidence"].fillna(0.0),
        rules_broken=rows["rules_broken"].fillna("").astype("str"),
        reason=rows["reason"].fillna(NOT_ASKED).astype("str"),
        verifier=pd.Series(np.where(vouched, AUTHOR, oracle.name), index=candidates.index, dtype="str"),
        verified_under=pd.Series(policy.fingerprint, index=candidates.index, dtype="str"),
        task_id=_name_tasks(candidates, pairs),
    )


def _name_tasks(candidates: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    prompts = candidates["pair_id"].map(pairs.set_index("pair_id")["prompt"])
    names = [task_id(*texts) for texts in zip(prompts, candidates["response"], strict=True)]
    return pd.Series(names, index=candidates.index, dtype="str")


def _vouch(judgment: Judgment) -> Judgment:
    looked_up_in_vain = judgment.complies is None and judgment.reason in (NOT_JUDGED, NO_LABEL)
    return Judgment(True, 1.0, reason=VOUCHED, oracle=AUTHOR) if looked_up_in_vain else judgment


def _warn_of_dropped(writers: pd.Series, judgments: Sequence[Judgment], oracle: str) -> None:
    """People's work is not left out without a word."""
    by_people = [j for j, writer in zip(judgments, writers, strict=True) if writer == PEOPLE]
    if reasons := Counter(j.reason for j in by_people if j.complies is None):
        logger.warning(
            "%d of %d corrections that people wrote are not used: %r could not judge them, most often for "
            "this reason: %s. Set `corrections.verifier` to an oracle that reads texts, such as "
            "{oracle: rules}",
            reasons.total(), len(by_people), oracle, reasons.most_common(1)[0][0],
        )  # fmt: skip


def choose(verified: pd.DataFrame, *, min_confidence: float) -> pd.DataFrame:
    """Mark the best passing candidate of each pair and writer, and the one that becomes the correction.

    Passing: the verifier says with enough confidence that it complies, and it has no flaw. What people wrote
    needs no gate: they have looked at it. People come before machines; then the most confident verdict, then
    the nearest topic, then the first.

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


def correct(punish: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The PUNISH pairs with the selected correction and where it comes from; null where nothing passes.

    A pair without a correction is suppressed instead (`loss.punish`), row by row.
    """
    selected = chosen[chosen["selected"]].set_index("pair_id")
    rows = selected.reindex(punish["pair_id"]).reset_index(drop=True)
    columns = {name: rows[source] for name, source in PROVENANCE.items()}
    numbers = {"correction_candidate": "Int64", "correction_confidence": "float", "correction_topic": "float"}
    numbers |= {"correction_copied": "float"}
    kinds = {name: numbers.get(name, "str") for name in PROVENANCE}
    table = punish.reset_index(drop=True).assign(correction=rows["response"].astype("str"), **columns)
    return table.astype(kinds)


def report(punish: pd.DataFrame, chosen: pd.DataFrame) -> dict[str, Any]:
    """How many candidates there are by writer, how many pass, why others fail, and what pairs have now."""
    selected = chosen[chosen["selected"]]
    corrected, verified = (selected[column].value_counts() for column in ("writer", "verifier"))
    return {
        "pairs": len(punish),
        "corrected": int(corrected.sum()),
        "suppressed": len(punish) - int(corrected.sum()),
        "corrected_by": {str(writer): int(n) for writer, n in corrected.items()},
        "verified_by": {str(verifier): int(n) for verifier, n in verified.items()},
        "verifier": " and ".join(sorted(set(chosen["verifier"]))) or None,
        "writers": {
            str(writer): _report_writer(part) for writer, part in chosen.groupby("writer", sort=False)
        },
    }


def _report_writer(part: pd.DataFrame) -> dict[str, Any]:
    flaws = part["flaws"].str.split(",").explode()
    judged = part[part["reason"] != NOT_ASKED]
    verdicts = judged["complies"]
    rules = judged["rules_broken"].str.split(",").explode()
    pairs = part.groupby("pair_id")["passes"].any()
    return {
        "model": sorted(set(part["model"])),
        "candidates": len(part),
        "flaws": {str(k): int(v) for k, v in flaws[flaws != ""].value_counts().items()},
        "judged": len(judged),
        "complies": int(verdicts.fillna(False).sum()),
        "violates": int((~verdicts.fillna(True)).sum()),
        "unscored": int(verdicts.isna().sum()),
        "rules_broken": {str(k): int(v) for k, v in rules[rules != ""].value_counts().items()},
        "passing": _share(int(part["passes"].sum()), len(part)),
        "pairs_with_a_passing_one": _share(int(pairs.sum()), len(pairs)),
    }


def _share(number: int, total: int) -> dict[str, Any]:
    return {
        "n": number,
        "of": total,
        "share": number / total,
        "interval": list(wilson_interval(number, total)),
    }
