"""Pairs → judgments: ask an oracle about every response, and measure it where the truth is known."""

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
from realignment.triage import disposition_of


def measure_oracle(pairs: pd.DataFrame, judgments: pd.DataFrame) -> dict[str, Any]:
    """Agreement of the oracle with the hand-set truth, where the data has one.

    Returns:
        The oracle report of `docs/reference/outputs.md`; `accuracy` is null where the data has no truth.
    """
    return report_oracle(str(judgments["oracle"].iloc[0]), count_verdicts(pairs, judgments))


def count_verdicts(pairs: pd.DataFrame, judgments: pd.DataFrame) -> Counts:
    """What `report_oracle` reports: responses, and where the truth is known, how they were judged."""
    scored = judgments[judgments["response"] != "correction"]
    counts: Counts = Counter({("n",): len(scored), ("unscored",): int(scored["complies"].isna().sum())})
    if not {"chosen_complies", "rejected_complies"} <= set(pairs.columns):
        return counts
    table = pairs.set_index("pair_id")
    by_response = {
        r: scored[scored["response"] == r].set_index("pair_id")["complies"] for r in ("chosen", "rejected")
    }
    for response, verdicts in by_response.items():
        measured = _compare(table[f"{response}_complies"], verdicts)
        counts.update({("field", response, cell): count for cell, count in measured.items()})
    counts.update(_confuse_dispositions(table, by_response))
    return counts


def report_oracle(oracle: str, counts: Counts) -> dict[str, Any]:
    """The report of these counts (`count_verdicts`)."""
    report: dict[str, Any] = {"oracle": oracle, "n": counts["n",], "unscored": counts["unscored",]}
    report |= {"accuracy": None, "interval": None}
    measured = {
        response: {cell: counts["field", response, cell] for cell in ("tp", "fp", "fn", "tn")}
        for response in ("chosen", "rejected")
    }
    pooled = {cell: sum(part[cell] for part in measured.values()) for cell in ("tp", "fp", "fn", "tn")}
    known = sum(pooled.values())
    if not known:
        return report
    right = pooled["tp"] + pooled["tn"]
    confusion: dict[str, dict[str, int]] = {}
    for kind, *key in counts:
        if kind == "disposition":
            confusion.setdefault(key[0], {})[key[1]] = counts["disposition", key[0], key[1]]
    return report | {
        "accuracy": right / known,
        "interval": list(wilson_interval(right, known)),
        "confusion": pooled,
        "by_field": measured,
        "disposition_accuracy": _share_on_diagonal(confusion),
        "disposition_confusion": confusion,
    }


def _compare(truth: pd.Series, verdict: pd.Series) -> dict[str, int]:
    """Confusion counts; positive = complies. Unscored and unlabelled responses are left out."""
    truth, verdict = truth.astype("boolean"), verdict.reindex(truth.index)
    both = truth.notna() & verdict.notna()
    t, v = truth[both].to_numpy(bool), verdict[both].to_numpy(bool)
    counts = {"tp": t & v, "fp": ~t & v, "fn": t & ~v, "tn": ~t & ~v}
    return {name: int(cell.sum()) for name, cell in counts.items()}


def _confuse_dispositions(table: pd.DataFrame, verdicts: dict[str, pd.Series]) -> Counts:
    """(disposition, true, assigned) → number of pairs; where the labels leave the truth open, none."""

    def assign(chosen: pd.Series, rejected: pd.Series) -> list[Disposition]:
        known = [[None if pd.isna(v) else bool(v) for v in column] for column in (chosen, rejected)]
        return [disposition_of(*values) for values in zip(*known, strict=True)]

    true = assign(table["chosen_complies"], table["rejected_complies"])
    given = assign(*(verdicts[response].reindex(table.index) for response in ("chosen", "rejected")))
    pairs = zip(true, given, strict=True)
    return Counter(("disposition", str(t), str(g)) for t, g in pairs if t is not Disposition.REVIEW)


def _share_on_diagonal(confusion: dict[str, dict[str, int]]) -> float | None:
    total = sum(sum(row.values()) for row in confusion.values())
    return sum(row.get(d, 0) for d, row in confusion.items()) / total if total else None


def repeat_stability(
    pairs: pd.DataFrame, policy: Policy, oracle: Oracle, judgments: pd.DataFrame, *, sample: int, seed: int
) -> float | None:
    """Share of a random sample of responses to which the oracle gives the same verdict when asked again.

    Args:
        pairs: Cleaned pairs.
        policy: They are judged under.
        oracle: Who judged them.
        judgments: What it said the first time.
        sample: Responses to judge again, rounded up to whole pairs; 0: none, and the result is None.
        seed: Of the sample.
    """
    if not sample:
        return None
    rows = pairs.sample(min(math.ceil(sample / 2), len(pairs)), random_state=seed)
    again = judge_pairs(rows.assign(correction=None), policy, oracle)
    merged = again.merge(judgments, on=["pair_id", "response"], suffixes=("_again", ""))
    same = (merged["complies"] == merged["complies_again"]) | (
        merged["complies"].isna() & merged["complies_again"].isna()
    )
    return float(np.mean(same.fillna(False).to_numpy(bool)))


def check_oracle(
    report: dict[str, Any], judgments: pd.DataFrame, *, max_unscored: float, min_stability: float
) -> None:
    """Stop before training where the oracle is unstable (method.md, section 10); `judgments` say why.

    Raises:
        HealthError: Too many responses are unscored, or repeated judgments disagree too often.
    """
    share = report["unscored"] / max(report["n"], 1)
    if share > max_unscored:
        raise HealthError(
            f"The oracle {report['oracle']!r} left {report['unscored']} of {report['n']} responses unscored "
            f"({share:.0%}, limit {max_unscored:.0%}), most often for this reason: "
            f"{judgments.loc[judgments['complies'].isna(), 'reason'].mode().iloc[0]!r:.300}. Mend its cause, "
            "label more data, choose another `judging.oracle`, or raise `judging.max_unscored`: those pairs "
            "then go to review. Replies that cannot be read are kept; `judging.refresh=true` asks again."
        )
    stability = report.get("stability")
    if stability is not None and stability < min_stability:
        raise HealthError(
            f"The oracle {report['oracle']!r} repeats only {stability:.0%} of its verdicts "
            f"(limit {min_stability:.0%}). Lower its temperature, vote over several samples, or lower "
            "`judging.min_stability`."
        )
