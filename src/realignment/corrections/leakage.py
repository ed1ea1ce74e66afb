"""What a writer's own values leave in its corrections: a machine's against those of people (method.md, 6)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy

from realignment.corrections.candidates import PEOPLE
from realignment.corrections.selection import NOT_ASKED, VOUCHED
from realignment.policy.text_features import FEATURES, measure

LEAKAGE_COLUMNS = (
    "writer", "group", "metric", "paired", "n_people", "n_writer", "people", "value", "difference", "low",
    "high", "effect", "effect_low", "effect_high", "unit",
)  # fmt: skip

ENOUGH = 10
"""Pairs that both have written for, from which on only these are compared: same prompts on both sides."""

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class _Sides:
    """One quantity by pair: of what people wrote, and of what the machine wrote."""

    people: pd.Series
    writer: pd.Series

    @property
    def paired(self) -> bool:
        return len(self.people.index.intersection(self.writer.index)) >= ENOUGH


def measure_leakage(chosen: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """How far each machine's corrections are from those of people: agreement, rules, length, style.

    Agreement and rules are over all candidates that the verifier judged, length and style over the best
    passing one of a pair. Every quantity is a mean over pairs; differences are machine − people, with
    bootstrap intervals.

    Args:
        chosen: From `corrections.choose`.
        seed: Of the bootstrap and the folds.

    Returns:
        LEAKAGE_COLUMNS; `effect` is the difference in standard deviations, pooled (Cohen's d). No rows where
        people or machines wrote nothing.
    """
    rows: list[dict[str, Any]] = []
    if chosen.empty:
        return pd.DataFrame(columns=list(LEAKAGE_COLUMNS))
    people = chosen[chosen["writer"] == PEOPLE]
    for writer, part in chosen[chosen["writer"] != PEOPLE].groupby("writer", sort=False):
        if len(people) and len(part):
            rows += _compare_writer(str(writer), people, part, seed)
    return pd.DataFrame(rows, columns=list(LEAKAGE_COLUMNS))


def _compare_writer(
    writer: str, people: pd.DataFrame, part: pd.DataFrame, seed: int
) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    # That an author vouches for what they wrote is no measurement of it.
    judged = [side[~side["reason"].isin((NOT_ASKED, VOUCHED))] for side in (people, part)]
    judged = [side[side["complies"].notna()] for side in judged]
    quantities = [("agreement", "complies", [side["complies"].astype(float) for side in judged], "share")]
    rules = sorted(
        {rule for side in judged for text in side["rules_broken"] for rule in text.split(",") if rule}
    )
    for rule in rules:
        broken = [
            side["rules_broken"].str.split(",").map(lambda ids, r=rule: float(r in ids)) for side in judged
        ]
        quantities.append(("rule broken", rule, broken, "share"))
    for group, metric, values, unit in quantities:
        sides = _Sides(*(v.groupby(s["pair_id"]).mean() for v, s in zip(values, judged, strict=True)))
        yield from _row(writer, group, metric, sides, unit, rng)
    best = [side[side["best"]] for side in (people, part)]
    yield from compare_manner(writer, *best, seed=seed)


def compare_manner(
    writer: str, ours: pd.DataFrame, theirs: pd.DataFrame, *, seed: int, against: str = ""
) -> Iterator[dict[str, Any]]:
    """Rows of LEAKAGE_COLUMNS on length, style, and how well the two sides are told apart.

    Args:
        writer: Whom the rows are about.
        ours: Columns pair_id, response, words: what people wrote, or have verified.
        theirs: The same of the other side.
        seed: Of the bootstrap and the folds.
        against: Added to the groups' names, where `ours` is not what people wrote.
    """
    rng, both = np.random.default_rng(seed), (ours, theirs)
    if not len(ours) or not len(theirs):
        return
    words = _Sides(*(side.groupby("pair_id")["words"].mean() for side in both))
    yield from _row(writer, f"length{against}", "words", words, "words", rng)
    styles = [pd.DataFrame(measure(s["response"].tolist()), index=s["pair_id"].to_numpy()) for s in both]
    styles = [table.groupby(level=0).mean() for table in styles]
    for number, feature in enumerate(FEATURES[1:], start=1):
        sides = _Sides(*(table[number] for table in styles))
        if any(side.any() for side in (sides.people, sides.writer)):
            yield from _row(writer, f"style{against}", feature.name, sides, "ln(1 + n)", rng)
    yield from _tell_apart(writer, f"told apart{against}", ours, theirs, seed=seed)


def _row(
    writer: str, group: str, metric: str, sides: _Sides, unit: str, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    if min(len(sides.people), len(sides.writer)) < 2:
        return
    common = sides.people.index.intersection(sides.writer.index) if sides.paired else None
    ours, theirs = (
        (side if common is None else side.loc[common]).to_numpy(float)
        for side in (sides.people, sides.writer)
    )
    difference = float(theirs.mean() - ours.mean())
    low, high = _interval(ours, theirs, sides.paired, rng)
    spread = math.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 2)
    scale = 1 / spread if spread > 1e-9 else math.nan
    yield {
        "writer": writer, "group": group, "metric": metric, "paired": sides.paired, "n_people": len(ours),
        "n_writer": len(theirs), "people": float(ours.mean()), "value": float(theirs.mean()),
        "difference": difference, "low": low, "high": high, "effect": difference * scale,
        "effect_low": low * scale, "effect_high": high * scale, "unit": unit,
    }  # fmt: skip


def _interval(
    ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], paired: bool, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile bootstrap over pairs; NaN where nothing varies."""
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


def _tell_apart(
    writer: str, group: str, people: pd.DataFrame, part: pd.DataFrame, *, seed: int
) -> Iterator[dict[str, Any]]:
    """How well a text classifier tells the two apart (classifier two-sample test, arXiv:1610.06545): AUC.

    0.5: not at all; 1: every time. Cross-validated by pair, so that the topic alone gives nothing away.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    common = set(people["pair_id"]) & set(part["pair_id"])
    paired = len(common) >= ENOUGH
    sides = [side[side["pair_id"].isin(common)] if paired else side for side in (people, part)]
    if min(len(side) for side in sides) < ENOUGH:
        return
    table = pd.concat(sides)
    truth = np.repeat([0, 1], [len(side) for side in sides])
    folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=seed)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10.0))
    scores = cross_val_predict(
        model, table["response"].tolist(), truth, groups=table["pair_id"], cv=folds, method="predict_proba"
    )[:, 1]
    area = float(roc_auc_score(truth, scores))
    low, high = _auc_interval(area, *(len(side) for side in sides))
    yield {
        "writer": writer, "group": group, "metric": "AUC", "paired": paired, "n_people": len(sides[0]),
        "n_writer": len(sides[1]), "people": 0.5, "value": area, "difference": area - 0.5, "low": low - 0.5,
        "high": high - 0.5, "effect": math.nan, "effect_low": math.nan, "effect_high": math.nan,
        "unit": "probability",
    }  # fmt: skip


def _auc_interval(area: float, negatives: int, positives: int) -> tuple[float, float]:
    """95 % interval of an AUC by the standard error of Hanley & McNeil 1982, within [0, 1]."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (first - area**2) + (negatives - 1) * (second - area**2)
    half = 1.96 * math.sqrt(max(variance, 0.0) / (negatives * positives))
    return max(0.0, area - half), min(1.0, area + half)
