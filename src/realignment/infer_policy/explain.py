"""Principles without a language model: a sparse regression of the choices on readable differences.

The choice between two responses as a logistic function of the difference of their features (Bradley & Terry
1952), with an L1 penalty (Tibshirani 1996) whose strength is cross-validated, and kept where it is found
again in resampled pairs (stability selection: Meinshausen & Bühlmann 2010, arXiv:0809.2932).
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.infer_policy.significance import FALSE_DISCOVERIES, adjust, score_tests
from realignment.infer_policy.table import PRINCIPLE_COLUMNS, Explanation
from realignment.policy.text_features import FEATURES, LENGTH, Feature, measure
from realignment.records import DataError
from realignment.statistics import wilson_interval

Floats = npt.NDArray[np.float64]

STRENGTHS = np.geomspace(1, 1000, 25)
"""Of the cross-validation: the weight of the mean loss beside the sum of absolute coefficients."""


def explain(
    pairs: pd.DataFrame,
    *,
    topic_words: int,
    folds: int,
    resamples: int,
    min_stability: float,
    min_support: float,
    seed: int,
) -> Explanation:
    """The features whose differences explain which response was chosen.

    A principle is kept where its coefficient has one sign in a share `min_stability` of resampled pairs,
    where it is found at a false discovery rate of `FALSE_DISCOVERIES` with all stronger principles being
    equal, and where by itself it predicts more than half of the choices that it has a say in.

    Args:
        pairs: Columns prompt, chosen, rejected.
        topic_words: Frequent words that are features too, at most; 0: none.
        folds: Of the cross-validation, by prompt.
        resamples: Bootstrap samples of prompts.
        min_stability: In (0.5, 1].
        min_support: Share of pairs that a principle must have a say in.
        seed: Of the orders, folds and samples.

    Raises:
        DataError: Fewer prompts than can be cross-validated.
    """
    prompts = _count_prompts(pairs, folds)
    features, differences = measure_differences(pairs, topic_words)
    model = _Regression(differences, pairs["prompt"].to_numpy(), seed)
    strength, correct = model.cross_validate(folds)
    table = _tabulate(features, model, strength, resamples)
    kept = (table["stability"] >= min_stability) & (table["support"] >= min_support)
    kept &= (table["q_value"] <= FALSE_DISCOVERIES) & (table["agreement"] > 0.5)
    order = table[kept].sort_values("coefficient", key=np.abs, ascending=False, kind="stable")
    found = {"strength": float(strength), "selected": len(table), "kept": int(kept.sum())}
    known = {"n": len(pairs), "prompts": prompts, "features": len(features)}
    shares = {"accuracy": _share(correct), "longer_chosen": _share(_longer(pairs))}
    return Explanation(order.reset_index(drop=True), {"method": "features"} | known | found | shares)


def _count_prompts(pairs: pd.DataFrame, folds: int) -> int:
    prompts = int(pairs["prompt"].nunique())
    if prompts < 4 * folds:
        raise DataError(
            f"Found pairs of {prompts} prompts; explaining choices takes at least {4 * folds} (four a fold). "
            "Give more pairs, or lower `principles.folds`."
        )
    return prompts


def measure_differences(pairs: pd.DataFrame, topic_words: int) -> tuple[tuple[Feature, ...], Floats]:
    """The features that tell at least five pairs apart, and chosen − rejected of each, shape (n, f)."""
    features = (*FEATURES, *choose_topic_words(pairs, topic_words))
    differences = measure(pairs["chosen"].tolist(), features) - measure(pairs["rejected"].tolist(), features)
    used = np.flatnonzero((differences != 0).sum(axis=0) >= 5)
    return tuple(features[i] for i in used), differences[:, used]


def _longer(pairs: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether the longer response was chosen: the simplest explanation, to compare with."""
    chosen, rejected = (measure(pairs[side].tolist(), [LENGTH])[:, 0] for side in ("chosen", "rejected"))
    return np.asarray(chosen[chosen != rejected] > rejected[chosen != rejected])


def choose_topic_words(pairs: pd.DataFrame, number: int) -> tuple[Feature, ...]:
    """The most frequent words of the responses, by pairs, without stop words, as features of their own."""
    if not number:
        return ()
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    counts: Counter[str] = Counter()
    for texts in zip(pairs["chosen"], pairs["rejected"], strict=True):
        words = set(re.findall(r"[a-z]{4,}", " ".join(texts).lower()))
        counts.update(words - ENGLISH_STOP_WORDS)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[:number]
    return tuple(
        Feature(
            f"word_{word}",
            f"The response mentions “{word}”.",
            f"The response does not mention “{word}”.",
            rf"\b{word}\b",
        )
        for word in ranked
    )


@dataclass(frozen=True)
class _Regression:
    """Choices on differences. The order of a pair is drawn at random, so that there is no intercept to fit.

    Attributes:
        differences: Chosen − rejected, shape (n, f).
        groups: The prompt of each pair, shape (n,): pairs of a prompt are in one fold and one sample.
        seed: Of orders, folds and samples.
    """

    differences: Floats
    groups: npt.NDArray[Any]
    seed: int

    def _inputs(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Differences in random order, of unit root mean square, and whether the first was chosen."""
        signs = np.where(np.random.default_rng(self.seed).random(len(self.differences)) < 0.5, 1, -1)
        scale = np.sqrt((self.differences**2).mean(axis=0))
        return self.differences / scale * signs[:, None], (signs > 0).astype(np.int64)

    def fit(self, strength: float, rows: npt.NDArray[np.int64]) -> Floats:
        """Coefficients of the given rows, shape (f,)."""
        from sklearn.linear_model import LogisticRegression

        inputs, first = self._inputs()
        model = LogisticRegression(
            C=strength / len(rows), l1_ratio=1.0, solver="liblinear", fit_intercept=False, max_iter=1000,
            random_state=self.seed,
        )  # fmt: skip
        if len(set(first[rows])) < 2:
            return np.zeros(inputs.shape[1])
        return np.asarray(model.fit(inputs[rows], first[rows]).coef_[0], dtype=np.float64)

    def cross_validate(self, folds: int) -> tuple[float, npt.NDArray[np.bool_]]:
        """The strongest penalty whose loss is within one standard error of the best, and what it gets right.

        The standard error of the difference on the same pairs.
        """
        from sklearn.model_selection import GroupKFold

        inputs, first = self._inputs()
        splitter = GroupKFold(folds, shuffle=True, random_state=self.seed)
        margins = np.empty((len(STRENGTHS), len(inputs)))
        for train, test in splitter.split(inputs, first, self.groups):
            for place, strength in enumerate(STRENGTHS):
                margins[place, test] = inputs[test] @ self.fit(strength, train)
        losses = np.logaddexp(0, -np.where(first == 1, margins, -margins))
        worse = losses - losses[losses.mean(axis=1).argmin()]
        errors = worse.std(axis=1, ddof=1) / np.sqrt(worse.shape[1])
        place = int(np.flatnonzero(worse.mean(axis=1) <= errors)[0])
        right = np.where(first == 1, margins[place], -margins[place])
        return float(STRENGTHS[place]), right[right != 0] > 0

    def test(self, coefficients: Floats) -> Floats:
        """P of every feature, those with larger coefficients being equal; 1 where the coefficient is 0."""
        inputs, first = self._inputs()
        order = np.argsort(-np.abs(coefficients), kind="stable")[: np.count_nonzero(coefficients)]
        values = np.ones(len(coefficients))
        values[order] = score_tests(inputs[:, order], first, self.groups)
        return values

    def resample(self, strength: float, number: int) -> Floats:
        """Coefficients of bootstrap samples of prompts, shape (number, f)."""
        rng = np.random.default_rng(self.seed + 1)
        names, inverse = np.unique(self.groups, return_inverse=True)
        members = [np.flatnonzero(inverse == i) for i in range(len(names))]
        samples = [
            np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])
            for _ in range(number)
        ]
        return np.stack([self.fit(strength, rows) for rows in samples])


def _tabulate(
    features: tuple[Feature, ...], model: _Regression, strength: float, resamples: int
) -> pd.DataFrame:
    """A row for every feature that the penalty leaves in."""
    coefficients = model.fit(strength, np.arange(len(model.differences)))
    resampled = model.resample(strength, resamples)
    q_values = adjust(model.test(coefficients))
    rows = [
        _describe(features[i], model.differences[:, i], coefficients[i], resampled[:, i], q_values[i])
        for i in np.flatnonzero(coefficients)
    ]
    return pd.DataFrame(rows, columns=list(PRINCIPLE_COLUMNS))


def _describe(
    feature: Feature, differences: Floats, coefficient: float, resampled: Floats, q_value: float
) -> tuple[Any, ...]:
    applies = differences != 0
    predicted = int((differences[applies] * coefficient > 0).sum())
    low, high = wilson_interval(predicted, int(applies.sum()))
    ends = np.quantile(resampled, [0.025, 0.975])
    return (
        f"{feature.name}-{'more' if coefficient > 0 else 'less'}".replace("_", "-"),
        feature.more if coefficient > 0 else feature.less,
        float(coefficient),
        float(ends[0]),
        float(ends[1]),
        float((np.sign(resampled) == np.sign(coefficient)).mean()),
        int(applies.sum()),
        len(differences),
        float(applies.mean()),
        predicted / int(applies.sum()),
        low,
        high,
        float(q_value),
    )


def _share(correct: npt.NDArray[np.bool_]) -> dict[str, Any]:
    n = len(correct)
    if not n:
        return {"n": 0, "share": None, "interval": None}
    return {"n": n, "share": float(correct.mean()), "interval": [*wilson_interval(int(correct.sum()), n)]}
