"""Measure an oracle from a sample and its truth: every figure with the interval due to the sampling."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from realignment.audit.calibration import fit_error_rates, measure_calibration
from realignment.audit.sampling import ROUTED, Estimate, estimate, tally
from realignment.audit.scores import ASSIGNED, Dispositions, estimate_all, half, verdict_metrics
from realignment.records import DataError, Disposition
from realignment.triage import decide_disposition

COLUMNS = ("scope", "metric", "group", "value", "low", "high", "n")
JUDGED = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Audit:
    """The measured figures of an oracle.

    Attributes:
        metrics: Columns `COLUMNS`, one row per figure.
        confusion: assigned, true, pairs, low, high (pairs of the population), audited (pairs of the sample).
        reliability: bin, confidence, accuracy, low, high, share, n.
        audited: One row per sampled pair, with its truth as far as it is pairs_with_truth.
        error_rates: Disposition → error rate of its pairs; see `audit.calibration.fit_error_rates`.
    """

    metrics: pd.DataFrame
    confusion: pd.DataFrame
    reliability: pd.DataFrame
    audited: pd.DataFrame
    error_rates: dict[str, dict[str, float]]


def audit_oracle(
    triaged: pd.DataFrame, judgments: pd.DataFrame, sample: pd.DataFrame, truth: pd.DataFrame, *, seed: int
) -> Audit:
    """Estimate every figure of the oracle that the sample can tell.

    Args:
        triaged: Every pair with its disposition: the population.
        judgments: Judgments of the same pairs.
        sample: From `audit.sampling.draw_sample` over these pairs.
        truth: pair_id, chosen_truth, rejected_truth (null: unknown), chosen_rules, rejected_rules (ids that
            the truth names, separated by commas; null where it names none).
        seed: Seed of the intervals.

    Returns:
        The audit.

    Raises:
        DataError: The sample is of other splits, or nothing of it has a known truth.
    """
    rng = np.random.default_rng(seed)
    audited = _join_truth(triaged, sample, truth)
    # A pair without a known truth counts as REVIEW, which no pair is in truth.
    pairs_with_truth = audited[audited["true_disposition"] != Disposition.REVIEW]
    responses = _scored_responses(triaged, judgments)
    checked_responses = _responses_with_truth(responses, audited)
    if pairs_with_truth.empty or checked_responses.empty:
        raise DataError(
            f"None of the {len(sample)} sampled pairs has a known truth. Import people's verdicts "
            "(`--pipelines review_import`), or give labels with the pairs."
        )
    dispositions = Dispositions.count(triaged, pairs_with_truth)
    # The order of the estimates is that of the draws from `rng`: another order gives other intervals.
    rows = _estimate_dispositions(dispositions, rng)
    rows += _estimate_verdicts(responses, checked_responses, rng)
    rows += _estimate_rules(responses, checked_responses, rng)
    figures, reliability = measure_calibration(responses, checked_responses, rng)
    rows += [("calibration", name, "all verdicts", figure) for name, figure in figures.items()]
    return Audit(
        metrics=tabulate(rows),
        confusion=_estimate_confusion(dispositions, rng),
        reliability=reliability,
        audited=audited,
        error_rates=fit_error_rates(audited),
    )


def measure_growth(
    triaged: pd.DataFrame, audited: pd.DataFrame, *, seed: int, points: int = 10
) -> pd.DataFrame:
    """Estimate the headline figures as the audit grows, to see whether more pairs would still change them.

    Pairs are audited in random order, so the first k of them are a smaller audit.

    Args:
        triaged: Every pair with its disposition: the population.
        audited: The audited pairs (`Audit.audited`), in the order of the sample.
        seed: Seed of the intervals.
        points: Sizes to estimate at, in equal steps.

    Returns:
        step (pairs audited), and accuracy, misrouted, kappa with `_low` and `_high` each.
    """
    rng = np.random.default_rng(seed)
    pairs_with_truth = audited[audited["true_disposition"] != Disposition.REVIEW]
    rows = []
    sizes = np.unique(np.linspace(0, len(pairs_with_truth), points + 1).round().astype(int))[1:]
    for step in sizes:
        dispositions = Dispositions.count(triaged, pairs_with_truth.head(step))
        row: dict[str, float] = {"step": int(step)}
        for (name, group), metric in dispositions.metrics().items():
            if group == "all pairs":
                figure = estimate(dispositions.counts, metric, rng)
                row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _join_truth(triaged: pd.DataFrame, sample: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The sampled pairs with disposition, verdicts, truth and true disposition."""
    dispositions = triaged.set_index("pair_id")["disposition"].reindex(sample["pair_id"])
    sizes = triaged["disposition"].value_counts().reindex(sample["stratum"])
    same_strata = (dispositions.to_numpy() == sample["stratum"].to_numpy()).all()
    same_sizes = (sizes.to_numpy() == sample["stratum_size"].to_numpy()).all()
    if not (same_strata and same_sizes):
        raise DataError(
            "The audit sample was drawn from other splits than these: dispositions or their sizes differ. "
            "Run the pipeline `audit` from its beginning, or load the splits that it was drawn from "
            "(`--load-versions`)."
        )
    columns = ["pair_id", "disposition", "chosen_verdict", "rejected_verdict", "rules_broken", "confidence"]
    joined = sample[["pair_id", "stratum", "stratum_size", "inclusion_probability"]]
    joined = joined.merge(triaged[columns], on="pair_id").merge(truth, on="pair_id", how="left")
    true_dispositions = [
        str(decide_disposition(_or_none(chosen), _or_none(rejected)))
        for chosen, rejected in zip(joined["chosen_truth"], joined["rejected_truth"], strict=True)
    ]
    return joined.assign(true_disposition=true_dispositions)


def _or_none(verdict: Any) -> bool | None:
    return None if pd.isna(verdict) else bool(verdict)


def _scored_responses(triaged: pd.DataFrame, judgments: pd.DataFrame) -> pd.DataFrame:
    """Every scored verdict on chosen and rejected, with its stratum."""
    scored = judgments[judgments["response"].isin(JUDGED) & judgments["complies"].notna()]
    strata = triaged.set_index("pair_id")["disposition"]
    return scored.assign(
        stratum=scored["pair_id"].map(strata), verdict=scored["complies"].astype(bool)
    ).reset_index(drop=True)


def _responses_with_truth(responses: pd.DataFrame, audited: pd.DataFrame) -> pd.DataFrame:
    """The scored verdicts whose truth is known, with columns `right`, `truth`, `true_rules`."""
    parts = []
    for response in JUDGED:
        pairs = audited[audited[f"{response}_truth"].notna()]
        part = pairs[["pair_id"]].assign(
            response=response,
            truth=pairs[f"{response}_truth"].astype(bool),
            true_rules=pairs[f"{response}_rules"],
        )
        parts.append(responses.merge(part, on=["pair_id", "response"]))
    checked_responses = pd.concat(parts, ignore_index=True)
    return checked_responses.assign(right=checked_responses["verdict"] == checked_responses["truth"])


Row = tuple[str, str, str, Estimate]
"""Scope, metric, group, figure."""


def _estimate_dispositions(dispositions: Dispositions, rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for (name, group), metric in dispositions.metrics().items():
        n = dispositions.audited_in(name, group)
        rows.append(("disposition", name, group, estimate(dispositions.counts, metric, rng, n)))
    return rows


def _estimate_verdicts(
    responses: pd.DataFrame, checked_responses: pd.DataFrame, rng: np.random.Generator
) -> list[Row]:
    rows: list[Row] = []
    for group, kinds in (("all verdicts", JUDGED), ("chosen", ("chosen",)), ("rejected", ("rejected",))):
        population = responses[responses["response"].isin(kinds)]
        audited = checked_responses[checked_responses["response"].isin(kinds)]
        if audited.empty:
            continue
        # The verdict is known of every response, so it may divide the design's strata further.
        by = ["stratum", "response", "verdict"]
        keys, counts = tally(population, audited, by, "right", {True: half, False: half})
        figures = estimate_all(counts, verdict_metrics(keys, by.index("verdict")), rng)
        rows += [("verdict", name, group, figure) for name, figure in figures.items()]
    return rows


def _estimate_rules(
    responses: pd.DataFrame, checked_responses: pd.DataFrame, rng: np.random.Generator
) -> list[Row]:
    """Precision of every rule: is a response that the oracle says breaks it a violation (of this rule)?

    Recall and F1 only where the truth names rules.
    """
    rows: list[Row] = []
    rules = set(responses["rules_broken"].str.split(",").explode()) - {""}
    truth_names_rules = checked_responses["true_rules"].notna()
    names = ("precision", "recall", "f1") if truth_names_rules.all() else ("precision",)
    by = ["stratum", "response", "verdict"]
    for rule in sorted(rules):
        # Here a verdict is "complies with this rule".
        population = responses.assign(verdict=~_lists_rule(responses["rules_broken"], rule))
        audited = checked_responses.assign(verdict=~_lists_rule(checked_responses["rules_broken"], rule))
        # Where the truth names no rules, any violation confirms the alarm.
        named = _lists_rule(checked_responses["true_rules"].fillna(""), rule)
        breaks = named.where(truth_names_rules, ~checked_responses["truth"])
        audited = audited.assign(right=audited["verdict"] != breaks)
        keys, counts = tally(population, audited, by, "right", {True: half, False: half})
        metrics = verdict_metrics(keys, by.index("verdict"))
        n_alarms = int((~audited["verdict"]).sum())
        rows += [("rule", name, rule, estimate(counts, metrics[name], rng, n_alarms)) for name in names]
    return rows


def _lists_rule(rules: pd.Series, rule: str) -> pd.Series:
    """Mark the lists of rule ids, separated by commas, that hold this one."""
    return pd.Series([rule in ids.split(",") for ids in rules], index=rules.index, dtype=bool)


def tabulate(rows: list[Row]) -> pd.DataFrame:
    """Tabulate figures, one row each.

    Args:
        rows: Scope, metric, group and figure of each.

    Returns:
        Columns `COLUMNS`.
    """
    cells = [
        (scope, metric, group, figure.value, figure.low, figure.high, figure.n)
        for scope, metric, group, figure in rows
    ]
    return pd.DataFrame(cells, columns=COLUMNS)


def _estimate_confusion(dispositions: Dispositions, rng: np.random.Generator) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    # Audited pairs, assigned × true, shape (4, 3).
    audited = dispositions.matrix(dispositions.counts.counts.astype(float))
    for i, assigned in enumerate(ASSIGNED):
        for j, true in enumerate(ROUTED):
            pairs = estimate(dispositions.counts, dispositions.cell(assigned, true), rng)
            rows.append((str(assigned), str(true), pairs.value, pairs.low, pairs.high, int(audited[i, j])))
    return pd.DataFrame(rows, columns=["assigned", "true", "pairs", "low", "high", "audited"])
