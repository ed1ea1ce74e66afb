"""How a writer's own values show in its corrections: a machine's against those of people (method.md, 6)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy

from realignment.corrections.candidates import PEOPLE
from realignment.corrections.selection import NOT_VERIFIED, VOUCHED
from realignment.policy.text_features import FEATURES, measure_features

LEAKAGE_COLUMNS = (
    "writer", "group", "metric", "paired", "n_people", "n_writer", "people", "value", "difference", "low",
    "high", "effect", "effect_low", "effect_high", "unit",
)  # fmt: skip

MIN_PAIRED = 10
"""Pairs with corrections of both sides, from which on only these pairs are compared: same prompts on both."""

RESAMPLES = 2000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """One quantity of each pair, averaged over its corrections: of people's, and of the machine's."""

    people: pd.Series
    writer: pd.Series

    @property
    def common_pairs(self) -> pd.Index:
        return self.people.index.intersection(self.writer.index)

    @property
    def is_paired(self) -> bool:
        return len(self.common_pairs) >= MIN_PAIRED


def measure_leakage(chosen: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Measure how far each machine's corrections are from those of people: agreement, rules, length, style.

    Agreement and rules are over all candidates that the verifier judged, length and style over the best
    passing one of a pair. Every quantity is a mean over pairs; differences are machine − people, with
    bootstrap intervals.

    Args:
        chosen: From `corrections.choose_corrections`.
        seed: Seeds the bootstrap and the folds.

    Returns:
        LEAKAGE_COLUMNS; `effect` is the difference in standard deviations, pooled (Cohen's d). No rows where
        people or machines wrote nothing.
    """
    rows: list[dict[str, Any]] = []
    if chosen.empty:
        return pd.DataFrame(columns=list(LEAKAGE_COLUMNS))
    people = chosen[chosen["writer"] == PEOPLE]
    for writer, candidates in chosen[chosen["writer"] != PEOPLE].groupby("writer", sort=False):
        if len(people) and len(candidates):
            rows += _compare_writer(str(writer), people, candidates, seed)
    return pd.DataFrame(rows, columns=list(LEAKAGE_COLUMNS))


def _compare_writer(
    writer: str, people: pd.DataFrame, candidates: pd.DataFrame, seed: int
) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    judged_people = _select_judged(people)
    judged_candidates = _select_judged(candidates)

    agreement = _Sample(
        _average_by_pair(judged_people["complies"].astype(float), judged_people),
        _average_by_pair(judged_candidates["complies"].astype(float), judged_candidates),
    )
    yield from _compare(writer, "agreement", "complies", agreement, "share", rng)
    for rule in _list_broken_rules(judged_people, judged_candidates):
        broken = _Sample(
            _average_by_pair(_breaks_rule(judged_people, rule), judged_people),
            _average_by_pair(_breaks_rule(judged_candidates, rule), judged_candidates),
        )
        yield from _compare(writer, "rule broken", rule, broken, "share", rng)
    yield from compare_style(writer, people[people["best"]], candidates[candidates["best"]], seed=seed)


def _select_judged(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a verdict of an oracle; that an author vouches for a text measures nothing."""
    is_judged = ~table["reason"].isin((NOT_VERIFIED, VOUCHED)) & table["complies"].notna()
    return table[is_judged]


def _average_by_pair(values: pd.Series, table: pd.DataFrame) -> pd.Series:
    return values.groupby(table["pair_id"]).mean()


def _list_broken_rules(*tables: pd.DataFrame) -> list[str]:
    """Return the ids, sorted, of all rules that any row breaks."""
    rules: set[str] = set()
    for table in tables:
        for ids in table["rules_broken"]:
            rules.update(ids.split(","))
    return sorted(rules - {""})


def _breaks_rule(table: pd.DataFrame, rule: str) -> pd.Series:
    """Return 1 for rows that break a rule, and 0 for others."""
    return table["rules_broken"].str.split(",").map(lambda ids: float(rule in ids))


def compare_style(
    writer: str, ours: pd.DataFrame, theirs: pd.DataFrame, *, seed: int, against: str = ""
) -> Iterator[dict[str, Any]]:
    """Compare two sets of corrections by length, by style, and by how well a classifier tells them apart.

    Args:
        writer: The writer that the rows are about.
        ours: Columns pair_id, response, words: what people wrote, or have verified.
        theirs: The same of the other side.
        seed: Seeds the bootstrap and the folds.
        against: Added to the groups' names, where `ours` is not what people wrote.

    Yields:
        Rows of LEAKAGE_COLUMNS.
    """
    if not len(ours) or not len(theirs):
        return
    rng = np.random.default_rng(seed)
    words = _Sample(_average_by_pair(ours["words"], ours), _average_by_pair(theirs["words"], theirs))
    yield from _compare(writer, f"length{against}", "words", words, "words", rng)
    our_features = _average_features(ours)
    their_features = _average_features(theirs)
    for number, feature in enumerate(FEATURES[1:], start=1):  # the first is length
        sample = _Sample(our_features[number], their_features[number])
        if sample.people.any() or sample.writer.any():
            yield from _compare(writer, f"style{against}", feature.name, sample, "ln(1 + n)", rng)
    yield from _compare_by_classifier(writer, f"told apart{against}", ours, theirs, seed=seed)


def _average_features(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean features of each pair's corrections, shape (pairs, features)."""
    features = pd.DataFrame(measure_features(table["response"].tolist()), index=table["pair_id"].to_numpy())
    return features.groupby(level=0).mean()


def _compare(
    writer: str, group: str, metric: str, sample: _Sample, unit: str, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Yield the row of one quantity; none where a side has fewer than two pairs."""
    if min(len(sample.people), len(sample.writer)) < 2:
        return
    people = sample.people
    machine = sample.writer
    if sample.is_paired:
        people = people.loc[sample.common_pairs]
        machine = machine.loc[sample.common_pairs]
    ours = people.to_numpy(float)  # shape (pairs,)
    theirs = machine.to_numpy(float)
    difference = float(theirs.mean() - ours.mean())
    low, high = _bootstrap_interval(ours, theirs, sample.is_paired, rng)
    # Cohen's d divides by the pooled standard deviation; it is undefined where nothing varies.
    deviation = math.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 2)
    scale = 1 / deviation if deviation > 1e-9 else math.nan
    yield {
        "writer": writer, "group": group, "metric": metric, "paired": sample.is_paired, "n_people": len(ours),
        "n_writer": len(theirs), "people": float(ours.mean()), "value": float(theirs.mean()),
        "difference": difference, "low": low, "high": high, "effect": difference * scale,
        "effect_low": low * scale, "effect_high": high * scale, "unit": unit,
    }  # fmt: skip


def _bootstrap_interval(
    ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], paired: bool, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the difference; NaN where nothing varies."""
    if max(np.ptp(ours), np.ptp(theirs)) == 0:
        return math.nan, math.nan

    def difference(a: Any, b: Any, axis: int = -1) -> Any:
        return b.mean(axis=axis) - a.mean(axis=axis)

    result = scipy.stats.bootstrap(
        (ours, theirs),
        difference,
        paired=paired,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=rng,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _compare_by_classifier(
    writer: str, group: str, ours: pd.DataFrame, theirs: pd.DataFrame, *, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the AUC of a text classifier between the sides (classifier two-sample test, arXiv:1610.06545).

    0.5: it cannot tell them apart; 1: it always can. Cross-validated by pair, so that the topic alone gives
    nothing away.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    common_pairs = set(ours["pair_id"]) & set(theirs["pair_id"])
    is_paired = len(common_pairs) >= MIN_PAIRED
    if is_paired:
        ours = ours[ours["pair_id"].isin(common_pairs)]
        theirs = theirs[theirs["pair_id"].isin(common_pairs)]
    if min(len(ours), len(theirs)) < MIN_PAIRED:
        return
    table = pd.concat([ours, theirs])
    labels = np.repeat([0, 1], [len(ours), len(theirs)])  # shape (rows,); 1: theirs
    folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=seed)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10.0))
    scores = cross_val_predict(
        model, table["response"].tolist(), labels, groups=table["pair_id"], cv=folds, method="predict_proba"
    )[:, 1]
    auc = float(roc_auc_score(labels, scores))
    low, high = _auc_interval(auc, len(ours), len(theirs))
    yield {
        "writer": writer, "group": group, "metric": "AUC", "paired": is_paired, "n_people": len(ours),
        "n_writer": len(theirs), "people": 0.5, "value": auc, "difference": auc - 0.5, "low": low - 0.5,
        "high": high - 0.5, "effect": math.nan, "effect_low": math.nan, "effect_high": math.nan,
        "unit": "probability",
    }  # fmt: skip


def _auc_interval(auc: float, negatives: int, positives: int) -> tuple[float, float]:
    """Return the 95 % interval of an AUC by the standard error of Hanley & McNeil 1982, within [0, 1]."""
    # Probabilities that two positives both score above a negative, and one positive above two negatives.
    q1 = auc / (2 - auc)
    q2 = 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    half_width = 1.96 * math.sqrt(max(variance, 0.0) / (negatives * positives))
    return max(0.0, auc - half_width), min(1.0, auc + half_width)
