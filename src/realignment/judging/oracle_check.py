"""Checks of an oracle: agreement with known truth, stability, and the share of unscored responses."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from realignment.judging.judge import judge_pairs
from realignment.oracles import Oracle
from realignment.policy import Policy
from realignment.records import Counts, Disposition, HealthError
from realignment.statistics import wilson_interval
from realignment.triage import decide_disposition

_CELLS = ("tp", "fp", "fn", "tn")
"""Cells of a confusion matrix; positive = complies."""


def measure_oracle(pairs: pd.DataFrame, judgments: pd.DataFrame) -> dict[str, Any]:
    """Measure the agreement of the oracle with the hand-set truth, where the data has one.

    Args:
        pairs: Cleaned pairs.
        judgments: What the oracle said of their responses.

    Returns:
        The oracle report of `docs/reference/outputs.md`; `accuracy` is null where the data has no truth.
    """
    return report_oracle(str(judgments["oracle"].iloc[0]), count_verdicts(pairs, judgments))


def count_verdicts(pairs: pd.DataFrame, judgments: pd.DataFrame) -> Counts:
    """Count what `report_oracle` reports; counts of several parts of a table can be added.

    Args:
        pairs: Cleaned pairs.
        judgments: Judgments of their responses.

    Returns:
        Responses and unscored ones; where the truth is known, also confusion counts of responses by field and
        of dispositions.
    """
    # Corrections are judged too, but have no truth, and are not part of the data.
    of_pairs = judgments[judgments["response"] != "correction"]
    n_unscored = int(of_pairs["complies"].isna().sum())
    counts: Counts = Counter({("n",): len(of_pairs), ("unscored",): n_unscored})
    if not {"chosen_complies", "rejected_complies"} <= set(pairs.columns):
        return counts
    table = pairs.set_index("pair_id")
    verdicts: dict[str, pd.Series] = {}
    for response in ("chosen", "rejected"):
        rows = of_pairs[of_pairs["response"] == response]
        verdicts[response] = rows.set_index("pair_id")["complies"]
        confusion = _count_confusion(table[f"{response}_complies"], verdicts[response])
        counts.update({("field", response, cell): count for cell, count in confusion.items()})
    counts.update(_count_dispositions(table, verdicts))
    return counts


def report_oracle(oracle: str, counts: Counts) -> dict[str, Any]:
    """Return the report of these counts.

    Args:
        oracle: Name of the oracle.
        counts: From `count_verdicts`.

    Returns:
        The oracle report of `docs/reference/outputs.md`; `accuracy` is null where the data has no truth.
    """
    report: dict[str, Any] = {"oracle": oracle, "n": counts["n",], "unscored": counts["unscored",]}
    report |= {"accuracy": None, "interval": None}
    by_field: dict[str, dict[str, int]] = {}
    pooled = dict.fromkeys(_CELLS, 0)
    for response in ("chosen", "rejected"):
        by_field[response] = {cell: counts["field", response, cell] for cell in _CELLS}
        for cell, count in by_field[response].items():
            pooled[cell] += count
    labelled = sum(pooled.values())
    if not labelled:
        return report
    right = pooled["tp"] + pooled["tn"]
    confusion: dict[str, dict[str, int]] = {}  # true disposition → assigned disposition → pairs
    for kind, *key in counts:
        if kind == "disposition":
            true, assigned = key
            confusion.setdefault(true, {})[assigned] = counts["disposition", true, assigned]
    return report | {
        "accuracy": right / labelled,
        "interval": list(wilson_interval(right, labelled)),
        "confusion": pooled,
        "by_field": by_field,
        "disposition_accuracy": _share_on_diagonal(confusion),
        "disposition_confusion": confusion,
    }


def _count_confusion(truth: pd.Series, verdict: pd.Series) -> dict[str, int]:
    """Return confusion counts; positive = complies. Unscored and unlabelled responses are left out."""
    truth = truth.astype("boolean")
    verdict = verdict.reindex(truth.index)
    both = truth.notna() & verdict.notna()
    t = truth[both].to_numpy(bool)
    v = verdict[both].to_numpy(bool)
    cells = {"tp": t & v, "fp": ~t & v, "fn": t & ~v, "tn": ~t & ~v}
    return {name: int(cell.sum()) for name, cell in cells.items()}


def _count_dispositions(table: pd.DataFrame, verdicts: dict[str, pd.Series]) -> Counts:
    """Return (disposition, true, assigned) → pairs; without pairs whose labels leave the truth open."""
    true = _assign_dispositions(table["chosen_complies"], table["rejected_complies"])
    chosen = verdicts["chosen"].reindex(table.index)
    rejected = verdicts["rejected"].reindex(table.index)
    counts: Counts = Counter()
    for truth, assigned in zip(true, _assign_dispositions(chosen, rejected), strict=True):
        if truth is not Disposition.REVIEW:
            counts["disposition", str(truth), str(assigned)] += 1
    return counts


def _assign_dispositions(chosen: pd.Series, rejected: pd.Series) -> list[Disposition]:
    """Return the disposition of each pair from whether its responses comply (true, false or null)."""
    verdicts = []
    for column in (chosen, rejected):
        verdicts.append([None if pd.isna(verdict) else bool(verdict) for verdict in column])
    return [decide_disposition(*pair_verdicts) for pair_verdicts in zip(*verdicts, strict=True)]


def _share_on_diagonal(confusion: dict[str, dict[str, int]]) -> float | None:
    """Return the share of pairs whose assigned disposition is the true one; None without pairs."""
    total = sum(sum(row.values()) for row in confusion.values())
    right = sum(row.get(disposition, 0) for disposition, row in confusion.items())
    return right / total if total else None


def measure_stability(
    pairs: pd.DataFrame, policy: Policy, oracle: Oracle, judgments: pd.DataFrame, *, sample: int, seed: int
) -> float | None:
    """Return the share of a random sample of responses that get the same verdict when judged again.

    Args:
        pairs: Cleaned pairs.
        policy: The policy to judge by.
        oracle: The oracle that judged them, without its store.
        judgments: Its first judgments.
        sample: Responses to judge again, rounded up to whole pairs; 0: none.
        seed: Seed of the sample.

    Returns:
        In [0, 1]; None without a sample.
    """
    if not sample:
        return None
    rows = pairs.sample(min(math.ceil(sample / 2), len(pairs)), random_state=seed)
    again = judge_pairs(rows.assign(correction=None), policy, oracle)
    merged = again.merge(judgments, on=["pair_id", "response"], suffixes=("_again", ""))
    # Unscored twice is the same verdict, although null does not equal null.
    same = (merged["complies"] == merged["complies_again"]) | (
        merged["complies"].isna() & merged["complies_again"].isna()
    )
    return float(np.mean(same.fillna(False).to_numpy(bool)))


def check_oracle(
    report: dict[str, Any], judgments: pd.DataFrame, *, max_unscored: float, min_stability: float
) -> None:
    """Stop before training where the oracle is unstable (method.md, section 10).

    Args:
        report: The oracle report; its `stability` may be missing.
        judgments: Judgments, whose reasons explain what is unscored.
        max_unscored: Share of unscored responses, in [0, 1].
        min_stability: Share of equal verdicts when judged again, in [0, 1].

    Raises:
        HealthError: Too many responses are unscored, or repeated judgments disagree too often.
    """
    share = report["unscored"] / max(report["n"], 1)
    if share > max_unscored:
        reason = judgments.loc[judgments["complies"].isna(), "reason"].mode().iloc[0]
        raise HealthError(
            f"The oracle {report['oracle']!r} left {report['unscored']} of {report['n']} responses unscored "
            f"({share:.0%}, limit {max_unscored:.0%}), most often for this reason: {reason!r:.300}. Fix its "
            "cause, label more data, choose another `judging.oracle`, or raise `judging.max_unscored`: those "
            "pairs then go to review. Replies that cannot be read are stored; `judging.refresh=true` judges "
            "again."
        )
    stability = report.get("stability")
    if stability is not None and stability < min_stability:
        raise HealthError(
            f"The oracle {report['oracle']!r} repeats only {stability:.0%} of its verdicts "
            f"(limit {min_stability:.0%}). Lower its temperature, vote over several samples, or lower "
            "`judging.min_stability`."
        )
