"""Sample and truth → every figure of the audit, each with the interval that the sampling gives it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from realignment.audit.calibration import fit_error_rates, measure_calibration
from realignment.audit.sampling import ROUTED, Estimate, estimate, tally
from realignment.audit.scores import ASSIGNED, Dispositions, estimate_all, half, verdict_metrics
from realignment.records import DataError, Disposition
from realignment.triage import disposition_of

COLUMNS = ("scope", "metric", "group", "value", "low", "high", "n")
JUDGED = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Audit:
    """What is known of the oracle.

    Attributes:
        metrics: `COLUMNS`; one row per figure.
        confusion: assigned, true, pairs, low, high (pairs of the population), audited (pairs of the sample).
        reliability: bin, confidence, accuracy, low, high, share, n.
        audited: One row per pair of known truth.
        error_rates: See `audit.calibration.fit_error_rates`.
    """

    metrics: pd.DataFrame
    confusion: pd.DataFrame
    reliability: pd.DataFrame
    audited: pd.DataFrame
    error_rates: dict[str, dict[str, float]]


def measure(
    triaged: pd.DataFrame, judgments: pd.DataFrame, sample: pd.DataFrame, truth: pd.DataFrame, *, seed: int
) -> Audit:
    """Everything about the oracle that the sample can tell.

    Args:
        triaged: Every pair with its disposition: the population.
        judgments: Of the same pairs.
        sample: From `audit.sampling.draw_sample` over these pairs.
        truth: pair_id, chosen_truth, rejected_truth (null: unknown), chosen_rules, rejected_rules (ids that
            the truth names, separated by commas; null where it names none).
        seed: Of the intervals.

    Raises:
        DataError: The sample is of other splits, or nothing of it has a known truth.
    """
    rng = np.random.default_rng(seed)
    audited = _join(triaged, sample, truth)
    known = audited[audited["true_disposition"] != Disposition.REVIEW]
    responses = _responses(triaged, judgments)
    checked = _checked(responses, audited)
    if known.empty or checked.empty:
        raise DataError(
            f"None of the {len(sample)} sampled pairs has a known truth. Import people's verdicts "
            "(`--pipelines review_import`), or give labels with the pairs."
        )
    dispositions = Dispositions.of(triaged, known)
    rows = _of_dispositions(dispositions, rng) + _of_verdicts(responses, checked, rng)
    rows += _of_rules(responses, checked, rng)
    figures, reliability = measure_calibration(responses, checked, rng)
    rows += [("calibration", name, "all verdicts", figure) for name, figure in figures.items()]
    return Audit(
        tabulate(rows), _confusion(dispositions, rng), reliability, audited, fit_error_rates(audited)
    )


def follow(triaged: pd.DataFrame, audited: pd.DataFrame, *, seed: int, points: int = 10) -> pd.DataFrame:
    """The headline figures as the audit grows: whether more pairs would still move them.

    Pairs are audited in random order, so the first k of them are a smaller audit.

    Returns:
        step (pairs audited), and accuracy, misrouted, kappa with `_low` and `_high` each.
    """
    rng = np.random.default_rng(seed)
    known = audited[audited["true_disposition"] != Disposition.REVIEW]
    rows = []
    for step in np.unique(np.linspace(0, len(known), points + 1).round().astype(int))[1:]:
        dispositions = Dispositions.of(triaged, known.head(step))
        row: dict[str, float] = {"step": int(step)}
        for (name, group), metric in dispositions.metrics().items():
            if group == "all pairs":
                found = estimate(dispositions.counts, metric, rng)
                row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _join(triaged: pd.DataFrame, sample: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    now = triaged.set_index("pair_id")["disposition"].reindex(sample["pair_id"])
    sizes = triaged["disposition"].value_counts().reindex(sample["stratum"])
    if (now.to_numpy() != sample["stratum"].to_numpy()).any() or (
        sizes.to_numpy() != sample["stratum_size"].to_numpy()
    ).any():
        raise DataError(
            "The audit sample was drawn from other splits than these: dispositions or their sizes differ. "
            "Run the "
            "pipeline `audit` from its beginning, or load the splits it was drawn from (`--load-versions`)."
        )
    columns = ["pair_id", "disposition", "chosen_verdict", "rejected_verdict", "rules_broken", "confidence"]
    joined = sample[["pair_id", "stratum", "stratum_size", "inclusion_probability"]]
    joined = joined.merge(triaged[columns], on="pair_id").merge(truth, on="pair_id", how="left")
    known = [[None if pd.isna(v) else bool(v) for v in joined[f"{response}_truth"]] for response in JUDGED]
    true = [disposition_of(*both) for both in zip(*known, strict=True)]
    return joined.assign(true_disposition=[str(d) for d in true])


def _responses(triaged: pd.DataFrame, judgments: pd.DataFrame) -> pd.DataFrame:
    """Every scored verdict on chosen and rejected, with its stratum."""
    scored = judgments[judgments["response"].isin(JUDGED) & judgments["complies"].notna()]
    strata = triaged.set_index("pair_id")["disposition"]
    return scored.assign(
        stratum=scored["pair_id"].map(strata), verdict=scored["complies"].astype(bool)
    ).reset_index(drop=True)


def _checked(responses: pd.DataFrame, audited: pd.DataFrame) -> pd.DataFrame:
    """Verdicts of the sample whose truth is known: `right`, `truth`, `true_rules` besides."""
    parts = []
    for response in JUDGED:
        known = audited[audited[f"{response}_truth"].notna()]
        part = known[["pair_id"]].assign(
            response=response,
            truth=known[f"{response}_truth"].astype(bool),
            true_rules=known[f"{response}_rules"],
        )
        parts.append(responses.merge(part, on=["pair_id", "response"]))
    checked = pd.concat(parts, ignore_index=True)
    return checked.assign(right=checked["verdict"] == checked["truth"])


Row = tuple[str, str, str, Estimate]


def _of_dispositions(dispositions: Dispositions, rng: np.random.Generator) -> list[Row]:
    return [
        (
            "disposition", name, group,
            estimate(dispositions.counts, metric, rng, dispositions.audited_in(name, group)),
        )
        for (name, group), metric in dispositions.metrics().items()
    ]  # fmt: skip


def _of_verdicts(responses: pd.DataFrame, checked: pd.DataFrame, rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for group, kinds in (("all verdicts", JUDGED), ("chosen", ("chosen",)), ("rejected", ("rejected",))):
        everything, known = (table[table["response"].isin(kinds)] for table in (responses, checked))
        if known.empty:
            continue
        by = ["stratum", "response", "verdict"]
        keys, counts = tally(everything, known, by, "right", {True: half, False: half})
        figures = estimate_all(counts, verdict_metrics(keys, by.index("verdict")), rng)
        rows += [("verdict", name, group, figure) for name, figure in figures.items()]
    return rows


def _of_rules(responses: pd.DataFrame, checked: pd.DataFrame, rng: np.random.Generator) -> list[Row]:
    """Precision of every rule: is a response that it is said to break a violation (and of this rule)?

    Recall and F1 only where the truth names rules.
    """
    rows: list[Row] = []
    flags = {rule for rules in responses["rules_broken"] for rule in rules.split(",") if rule}
    named, by = checked["true_rules"].notna(), ["stratum", "response", "verdict"]
    for rule in sorted(flags):
        everything = responses.assign(verdict=~_names(responses["rules_broken"], rule))
        known = checked.assign(verdict=~_names(checked["rules_broken"], rule))
        breaks = _names(checked["true_rules"].fillna(""), rule).where(named, ~checked["truth"])
        keys, counts = tally(
            everything, known.assign(right=known["verdict"] != breaks), by, "right", {True: half, False: half}
        )
        metrics, flagged = verdict_metrics(keys, by.index("verdict")), int((~known["verdict"]).sum())
        names = ("precision", "recall", "f1") if named.all() else ("precision",)
        rows += [("rule", name, rule, estimate(counts, metrics[name], rng, flagged)) for name in names]
    return rows


def _names(rules: pd.Series, rule: str) -> pd.Series:
    """Which lists of rule ids, separated by commas, have this one."""
    return pd.Series([rule in ids.split(",") for ids in rules], index=rules.index, dtype=bool)


def tabulate(rows: list[Row]) -> pd.DataFrame:
    """Figures as rows of `COLUMNS`."""
    cells = [(*row[:3], row[3].value, row[3].low, row[3].high, row[3].n) for row in rows]
    return pd.DataFrame(cells, columns=COLUMNS)


def _confusion(dispositions: Dispositions, rng: np.random.Generator) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    audited = dispositions.matrix(dispositions.counts.counts.astype(float))
    for i, assigned in enumerate(ASSIGNED):
        for j, true in enumerate(ROUTED):
            pairs = estimate(dispositions.counts, dispositions.cell(assigned, true), rng)
            rows.append((str(assigned), str(true), pairs.value, pairs.low, pairs.high, int(audited[i, j])))
    return pd.DataFrame(rows, columns=["assigned", "true", "pairs", "low", "high", "audited"])
